"""Interfaces of real machines, as facts, and the medium that each is."""

import itertools

import pytest

from thunderline.cluster.media import ORDER, Hardware, Medium, medium, receptacle_of
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
    "macos: a card of which only the name is known may be anything": (Hardware("en0"), Medium.OTHER),
    "linux: a wireless card": (Hardware("wlp2s0", driver="iwlwifi", kind="wlan", is_wireless=True), Medium.WIFI),
    "linux: a wireless card under an Ethernet name": (
        Hardware("eth1", driver="brcmfmac", is_wireless=True),
        Medium.WIFI,
    ),
    "linux: a tun device under any name": (Hardware("corp", kind="tun"), Medium.VPN),
    "linux: WireGuard under any name": (Hardware("office", kind="wireguard"), Medium.VPN),
    "linux: WireGuard by its usual name": (Hardware("wg0"), Medium.VPN),
    "linux: tailscale": (Hardware("tailscale0", kind="tun"), Medium.VPN),
    "macos: utun": (Hardware("utun3"), Medium.VPN),
    "macos: ipsec": (Hardware("ipsec0"), Medium.VPN),
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


# What macOS calls a hardware port; the interface's name says nothing where it is not told here.
PORTS: dict[str, Medium] = {
    "Thunderbolt 1": Medium.THUNDERBOLT,
    "Thunderbolt 6": Medium.THUNDERBOLT,
    "Thunderbolt 12": Medium.THUNDERBOLT,
    "Ethernet": Medium.ETHERNET,
    "Ethernet 2": Medium.ETHERNET,
    "Ethernet Adapter (en4)": Medium.ETHERNET,
    "Thunderbolt Ethernet": Medium.ETHERNET,
    "Thunderbolt Ethernet Slot 0": Medium.ETHERNET,
    "Thunderbolt Ethernet Slot 1, Port 1": Medium.ETHERNET,
    "Display Ethernet": Medium.ETHERNET,
    "USB 10/100/1000 LAN": Medium.ETHERNET,
    "USB 10/100/1G/2.5G/5G/10G LAN": Medium.ETHERNET,
    "USB Dock": Medium.ETHERNET,
    "USB 2.5GbE": Medium.ETHERNET,
    "AX88179A": Medium.ETHERNET,
    "Wi-Fi": Medium.WIFI,
    "iPhone USB": Medium.OTHER,
    "Bluetooth PAN": Medium.OTHER,
    "Thunderbolt": Medium.OTHER,
    "Thunderbolt Bridge": Medium.OTHER,
    "Thunderbolt FireWire": Medium.OTHER,
    "Planet 9": Medium.OTHER,
    "": Medium.OTHER,
}


@pytest.mark.parametrize(("port", "expected"), PORTS.items(), ids=[f"macos calls it {port!r}" for port in PORTS])
def test_a_hardware_port(port: str, expected: Medium) -> None:
    one = Hardware("en7", port=port)
    assert medium(one, {"en7": one}) is expected


# A hardware port -> the receptacle that it is.
RECEPTACLES: dict[str, str] = {
    "Thunderbolt 1": "1",
    "Thunderbolt 12": "12",
    "thunderbolt 3": "3",
    "5": "",
    "Thunderbolt": "",
    "Thunderbolt ": "",
    "Thunderbolt ٣": "",
    "Thunderbolt 1234": "",
    "Thunderbolt 1 (en2)": "",
    "Thunderbolt Bridge": "",
    "Thunderbolt Ethernet Slot 1": "",
    "Ethernet 2": "",
    "": "",
}


@pytest.mark.parametrize(("port", "expected"), RECEPTACLES.items(), ids=[repr(port) for port in RECEPTACLES])
def test_which_receptacle_a_hardware_port_is(port: str, expected: str) -> None:
    assert receptacle_of(port) == expected


# macOS lists no hardware port for these.
NAMED: dict[str, Medium] = {
    "lo0": Medium.LOOPBACK,
    "awdl0": Medium.WIFI,
    "llw0": Medium.WIFI,
    "utun12": Medium.VPN,
    "ipsec1": Medium.VPN,
    "ppp0": Medium.VPN,
    "tailscale0": Medium.VPN,
    "ap1": Medium.OTHER,
    "anpi0": Medium.OTHER,
    "gif0": Medium.OTHER,
    "stf0": Medium.OTHER,
    "vmenet0": Medium.OTHER,
    "bridge0": Medium.OTHER,
    "vlan0": Medium.OTHER,
    "en0": Medium.OTHER,
}


@pytest.mark.parametrize(("name", "expected"), NAMED.items(), ids=[f"macos names it {name}" for name in NAMED])
def test_an_interface_without_a_hardware_port(name: str, expected: Medium) -> None:
    assert medium(Hardware(name), {}) is expected


MEMBERS = {
    "cable": Hardware("cable", driver="thunderbolt-net"),
    "card": Hardware("card", driver="igc"),
    "radio": Hardware("radio", driver="iwlwifi", is_wireless=True),
    "tunnel": Hardware("tunnel", kind="tun"),
    "virtual": Hardware("virtual", kind="veth"),
    "en2": Hardware("en2", port="Thunderbolt 1"),
    "en3": Hardware("en3", port="Thunderbolt 2"),
    "en10": Hardware("en10", port="Thunderbolt Ethernet Slot 0"),
    "vmenet0": Hardware("vmenet0"),
}
BRIDGES = {
    "of one cable is as good as the cable": (("cable",), Medium.THUNDERBOLT),
    "of a cable and a card is Ethernet": (("cable", "card"), Medium.ETHERNET),
    "with a radio is Wi-Fi": (("cable", "card", "radio"), Medium.WIFI),
    "with a tunnel is a VPN, whatever else it has": (("cable", "tunnel", "radio", "virtual"), Medium.VPN),
    "with a virtual cable is no better than that": (("card", "virtual"), Medium.OTHER),
    "of members that are gone says nothing": (("gone",), Medium.OTHER),
    "is judged by the members that are there": (("gone", "card"), Medium.ETHERNET),
    "of a Mac's cables is as good as they are": (("en2", "en3"), Medium.THUNDERBOLT),
    "of a Mac's cables and a dock's card is Ethernet": (("en2", "en3", "en10"), Medium.ETHERNET),
    "of a Mac's virtual machines is no better than they are": (("vmenet0", "en10"), Medium.OTHER),
}


@pytest.mark.parametrize(("members", "expected"), BRIDGES.values(), ids=BRIDGES.keys())
def test_a_bridge(members: tuple[str, ...], expected: Medium) -> None:
    for order in itertools.permutations(members):
        bridge = Hardware("br0", kind="bridge", members=order)
        assert medium(bridge, {**MEMBERS, "br0": bridge}) is expected


def test_what_the_config_says_wins_over_what_the_system_says_of_members_too() -> None:
    bridge = Hardware("bridge0", port="Thunderbolt Bridge", members=("en2", "en10"))
    every = {**MEMBERS, "bridge0": bridge}
    assert medium(every["en10"], every, {"en10": Medium.THUNDERBOLT}) is Medium.THUNDERBOLT
    assert medium(bridge, every, {"en10": Medium.THUNDERBOLT}) is Medium.THUNDERBOLT
    assert medium(bridge, every, {"bridge0": Medium.OTHER}) is Medium.OTHER


def test_two_bridges_that_name_each_other_come_to_an_end() -> None:
    first = Hardware("br0", kind="bridge", members=("br1",))
    second = Hardware("br1", kind="bridge", members=("br0",))
    assert medium(first, {"br0": first, "br1": second}) is Medium.OTHER


def test_every_medium_has_one_place_in_the_order() -> None:
    assert sorted(ORDER, key=lambda one: one.value) == list(Medium)


def test_numbers_are_those_on_the_wire() -> None:
    wire = {name.removeprefix("MEDIUM_"): number for name, number in cluster_pb2.Medium.items()}
    assert wire == {"UNSPECIFIED": 0, **{one.name: one.value for one in Medium}}
