"""The medium of a link by the way that its packets really take; addresses; what the config says of an interface."""

from dataclasses import replace

import pytest

from thunderline.cluster.addresses import address_key, is_address, is_ipv4, is_private, is_probed, is_vpn
from thunderline.cluster.media import Hardware, Medium, medium
from thunderline.cluster.paths import End, Path, link_medium
from topology.scenes import ADDRESSES, NAMES, end, straight

M = Medium
TB, ETH, WIFI, VPN, LO, OTHER = M.THUNDERBOLT, M.ETHERNET, M.WIFI, M.VPN, M.LOOPBACK, M.OTHER
CABLE = straight(TB)

# The way there and back, the addresses of both ends: the medium, and whether it is asymmetric.
CASES: dict[str, tuple[Path, tuple[str, str], Medium, bool]] = {
    "a cable": (CABLE, ADDRESSES[TB], TB, False),
    "a cable's subnet that leaves by the LAN": (replace(CABLE, leaves=end(ETH)), ADDRESSES[TB], ETH, True),
    "a cable's subnet that is routed over Wi-Fi both ways": (straight(WIFI), ADDRESSES[TB], WIFI, False),
    "a cable's subnet that is routed over a tunnel": (straight(VPN), ADDRESSES[TB], VPN, False),
    "a cable's subnet that arrives on the LAN": (replace(CABLE, arrives=end(ETH)), ADDRESSES[TB], ETH, True),
    "there by cable, back by a tunnel": (
        replace(CABLE, returns=end(VPN), comes_back=end(VPN)),
        ADDRESSES[TB],
        VPN,
        True,
    ),
    "there by cable, back by nobody knows what": (Path(end(TB), end(TB)), ADDRESSES[TB], TB, False),
    "another cable of the same two nodes on the way back": (
        replace(CABLE, returns=End("en6", TB), comes_back=End("en6", TB)),
        ADDRESSES[TB],
        TB,
        True,
    ),
    "a LAN on one side, Wi-Fi on the other": (
        Path(end(ETH), end(WIFI), end(WIFI), end(ETH)),
        ADDRESSES[ETH],
        WIFI,
        False,
    ),
    "only the peer tells": (Path(arrives=end(TB), returns=end(TB)), ("192.168.4.2", ""), TB, False),
    "nobody tells": (Path(), ("192.168.4.2", ""), OTHER, False),
    "Tailscale through an interface that looks like a LAN": (straight(ETH), ("100.64.0.2", "10.0.0.1"), VPN, False),
    "Tailscale on this side only": (straight(ETH), ("10.0.0.2", "100.127.255.254"), VPN, False),
    "Tailscale's IPv6": (straight(ETH), ("fd7a:115c:a1e0::2", "fd7a:115c:a1e0::1"), VPN, False),
    "one's own machine": (straight(LO), ADDRESSES[LO], LO, False),
    "a virtual cable": (straight(OTHER), ADDRESSES[OTHER], OTHER, False),
}


@pytest.mark.parametrize(("path", "addresses", "expected", "asymmetric"), CASES.values(), ids=CASES.keys())
def test_a_way(path: Path, addresses: tuple[str, str], expected: Medium, asymmetric: bool) -> None:
    assert link_medium(path, addresses) is expected
    assert path.is_asymmetric is asymmetric


@pytest.mark.parametrize("one", M, ids=lambda one: one.name)
def test_a_straight_way_is_of_its_own_medium(one: Medium) -> None:
    assert link_medium(straight(one), ADDRESSES[one]) is one
    assert set(NAMES) == set(M)


# Address: private (RFC 1918), of a VPN, IPv4.
RANGES: dict[str, tuple[bool, bool, bool]] = {
    "10.0.0.0": (True, False, True),
    "10.255.255.255": (True, False, True),
    "11.0.0.0": (False, False, True),
    "172.15.255.255": (False, False, True),
    "172.16.0.0": (True, False, True),
    "172.31.255.255": (True, False, True),
    "172.32.0.0": (False, False, True),
    "192.168.4.1": (True, False, True),
    "192.169.0.0": (False, False, True),
    "169.254.1.1": (False, False, True),
    "127.0.0.1": (False, False, True),
    "100.63.255.255": (False, False, True),
    "100.64.0.0": (False, True, True),
    "100.127.255.255": (False, True, True),
    "100.128.0.0": (False, False, True),
    "::ffff:192.168.4.1": (True, False, True),
    "::ffff:100.64.0.1": (False, True, True),
    "fd00::1": (False, False, False),
    "fd7a:115c:a1e0::1": (False, True, False),
    "fe80::1": (False, False, False),
    "fe80::1%en5": (False, False, False),
}


@pytest.mark.parametrize(("address", "expected"), RANGES.items(), ids=RANGES.keys())
def test_an_address_is(address: str, expected: tuple[bool, bool, bool]) -> None:
    assert (is_private(address), is_vpn(address), is_ipv4(address)) == expected


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0", "10.0.0.256", "10.0.0.1:7412", "::g"])
def test_anything_else_is_no_address(text: str) -> None:
    assert not is_address(text) and not is_probed(text, same_machine=True)


def test_addresses_sort_as_numbers() -> None:
    mixed = ["fe80::1%en6", "10.0.0.10", "::1", "9.0.0.1", "fe80::1%en5", "10.0.0.9"]
    line = ["9.0.0.1", "10.0.0.9", "10.0.0.10", "::1", "fe80::1%en5", "fe80::1%en6"]
    assert sorted(mixed, key=address_key) == line


PROBED: dict[str, tuple[bool, bool]] = {
    "192.168.4.2": (True, True),
    "169.254.7.2": (True, True),
    "fd00::2": (True, True),
    "127.0.0.2": (False, True),
    "::1": (False, True),
    "fe80::1": (False, False),
    "0.0.0.0": (False, False),
    "224.0.0.251": (False, False),
}


@pytest.mark.parametrize(("address", "expected"), PROBED.items(), ids=PROBED.keys())
def test_an_address_is_worth_a_try(address: str, expected: tuple[bool, bool]) -> None:
    """From another machine, and from the same."""
    assert (is_probed(address, same_machine=False), is_probed(address, same_machine=True)) == expected


def test_the_config_says_what_a_virtual_cable_is() -> None:
    veth, card = Hardware("cable", kind="veth"), Hardware("card", driver="igc")
    bridge = Hardware("br0", kind="bridge", members=("cable", "card"))
    node = {one.name: one for one in (veth, card, bridge)}
    assert medium(veth, node) is OTHER and medium(bridge, node) is OTHER
    says = {"cable": TB}
    assert medium(veth, node, says) is TB
    assert medium(card, node, says) is ETH
    assert medium(bridge, node, says) is ETH
    assert medium(bridge, node, {"br0": WIFI}) is WIFI
