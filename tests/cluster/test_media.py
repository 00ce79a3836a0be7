"""Interfaces of real machines, as facts, and the medium that each is."""

import itertools

import pytest

from thunderline.cluster.media import ORDER, Hardware, Medium, medium
from thunderline.v1 import cluster_pb2

CASES = {
    "linux: lo says that it is a loopback": (Hardware("lo", kind="loopback"), Medium.LOOPBACK),
    "macos: lo0 is known by its name": (Hardware("lo0"), Medium.LOOPBACK),
    "linux: thunderbolt networking has a driver of its own": (
        Hardware("thunderbolt0", driver="thunderbolt-net"),
        Medium.THUNDERBOLT,
    ),
    "linux: a renamed thunderbolt interface is still one": (
        Hardware("en7", driver="thunderbolt-net"),
        Medium.THUNDERBOLT,
    ),
    "linux: a card with a driver is Ethernet": (Hardware("enp3s0", driver="igc"), Medium.ETHERNET),
    "linux: a virtual machine's card is Ethernet": (Hardware("eth0", driver="virtio_net"), Medium.ETHERNET),
    "macos: a card of which only the name is known is Ethernet": (Hardware("en0", driver="unknown"), Medium.ETHERNET),
    "linux: a wireless card": (Hardware("wlp2s0", driver="iwlwifi", kind="wlan", is_wireless=True), Medium.WIFI),
    "linux: a wireless card under an Ethernet name": (
        Hardware("eth1", driver="brcmfmac", is_wireless=True),
        Medium.WIFI,
    ),
    "linux: a tun device under any name": (Hardware("corp", kind="tun"), Medium.VPN),
    "linux: WireGuard under any name": (Hardware("office", kind="wireguard"), Medium.VPN),
    "linux: WireGuard by its usual name": (Hardware("wg0"), Medium.VPN),
    "linux: tailscale": (Hardware("tailscale0", kind="tun"), Medium.VPN),
    "macos: utun": (Hardware("utun3", driver="unknown"), Medium.VPN),
    "macos: ipsec": (Hardware("ipsec0", driver="unknown"), Medium.VPN),
    "linux: a modem's ppp": (Hardware("ppp0", kind="ppp"), Medium.VPN),
    "linux: a tap device, though it looks like Ethernet": (Hardware("tap0", driver="tun"), Medium.VPN),
    "linux: one end of a virtual cable says nothing": (Hardware("veth12ab", kind="veth"), Medium.OTHER),
    "linux: a container's eth0 has no driver": (Hardware("eth0"), Medium.OTHER),
    "linux: a dummy": (Hardware("dummy0", kind="dummy"), Medium.OTHER),
    "linux: a bridge without members": (Hardware("docker0", kind="bridge"), Medium.OTHER),
}


@pytest.mark.parametrize(("one", "expected"), CASES.values(), ids=CASES.keys())
def test_one_interface(one: Hardware, expected: Medium) -> None:
    assert medium(one, {one.name: one}) is expected


MEMBERS = {
    "cable": Hardware("cable", driver="thunderbolt-net"),
    "card": Hardware("card", driver="igc"),
    "radio": Hardware("radio", driver="iwlwifi", is_wireless=True),
    "tunnel": Hardware("tunnel", kind="tun"),
    "virtual": Hardware("virtual", kind="veth"),
}
BRIDGES = {
    "of one cable is as good as the cable": (("cable",), Medium.THUNDERBOLT),
    "of a cable and a card is Ethernet": (("cable", "card"), Medium.ETHERNET),
    "with a radio is Wi-Fi": (("cable", "card", "radio"), Medium.WIFI),
    "with a tunnel is a VPN, whatever else it has": (("cable", "tunnel", "radio", "virtual"), Medium.VPN),
    "with a virtual cable is no better than that": (("card", "virtual"), Medium.OTHER),
    "of members that are gone says nothing": (("gone",), Medium.OTHER),
    "is judged by the members that are there": (("gone", "card"), Medium.ETHERNET),
}


@pytest.mark.parametrize(("members", "expected"), BRIDGES.values(), ids=BRIDGES.keys())
def test_a_bridge(members: tuple[str, ...], expected: Medium) -> None:
    for order in itertools.permutations(members):
        bridge = Hardware("br0", kind="bridge", members=order)
        assert medium(bridge, {**MEMBERS, "br0": bridge}) is expected


def test_two_bridges_that_name_each_other_come_to_an_end() -> None:
    first = Hardware("br0", kind="bridge", members=("br1",))
    second = Hardware("br1", kind="bridge", members=("br0",))
    assert medium(first, {"br0": first, "br1": second}) is Medium.OTHER


def test_every_medium_has_one_place_in_the_order() -> None:
    assert sorted(ORDER, key=lambda one: one.value) == list(Medium)


def test_numbers_are_those_on_the_wire() -> None:
    wire = {name.removeprefix("MEDIUM_"): number for name, number in cluster_pb2.Medium.items()}
    assert wire == {"UNSPECIFIED": 0, **{one.name: one.value for one in Medium}}
