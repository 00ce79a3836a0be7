"""Cables between two Macs: RDMA at one end, slower than their ports, a port that is down, different systems."""

from dataclasses import replace
from typing import Any

import pytest

from cli.findings.laws import NOTE, WARNING, only, short
from cli.findings.rigs import TB4_FREE, mac, pair, port
from thunderline.cli.findings.cables import cables, groups, of_builds, of_cables, of_down_ports
from thunderline.cli.findings.finding import Finding
from thunderline.cli.findings.macs import Mac
from thunderline.cluster.machine_facts import Bridge, RdmaPortState, RdmaState, SeenMac

OFF, NONE, SILENT = RdmaState.DISABLED, RdmaState.UNAVAILABLE, RdmaState.UNKNOWN
DOWN = RdmaPortState.DOWN
ONE_END = "RDMA is enabled on ada, and not on bob at the other end of a cable"
OTHER_END = "RDMA is enabled on bob, and not on ada at the other end of a cable"
SLOW = "the cable between ada and bob is slower than their ports: 40 Gb/s"
NO_RDMA = "no RDMA over the cable between ada and bob"
TB4 = {"free": TB4_FREE}


def told(*macs: Mac) -> list[Finding]:
    return of_cables(cables(macs))


CABLES: dict[str, tuple[tuple[Mac, ...], list[tuple[str, str]]]] = {
    "a good one": (pair(), []),
    "two Macs without a cable": ((mac("ada"), mac("bob")), []),
    "off at one end": (pair(bob={"rdma": OFF}), [(WARNING, ONE_END)]),
    "off at the other": (pair(ada={"rdma": OFF}), [(WARNING, OTHER_END)]),
    "too old at one end": (pair(bob={"rdma": NONE, "os_version": "26.1"}), [(WARNING, ONE_END)]),
    "not told at one end": (pair(bob={"rdma": SILENT}), []),
    "off at both ends": (pair({"rdma": OFF}, {"rdma": OFF}), []),
    "Thunderbolt 4 at one end": (pair(bob={"rdma": OFF, **TB4}, speed_gbps=40), [(NOTE, NO_RDMA)]),
    "Thunderbolt 4 at one end, whatever rdma_ctl says there": (pair(bob=TB4, speed_gbps=40), [(NOTE, NO_RDMA)]),
    "Thunderbolt 4 at both ends": (pair({"rdma": OFF, **TB4}, {"rdma": OFF, **TB4}, speed_gbps=40), []),
    "slower than its ports": (pair(speed_gbps=40), [(WARNING, SLOW)]),
    "as fast as its ports": (pair(speed_gbps=80), []),
    "of no speed": (pair(speed_gbps=0), []),
    "slow, and nobody knows whether its ports are": (pair({"free": port("x")}, {"free": port("y")}, speed_gbps=40), []),
}


@pytest.mark.parametrize(("macs", "expected"), CABLES.values(), ids=CABLES.keys())
def test_a_cable(macs: tuple[Mac, ...], expected: list[tuple[str, str]]) -> None:
    assert short(told(*macs)) == expected
    assert short(told(*reversed(macs))) == expected


def test_rdma_at_one_end_is_told_with_what_to_do_at_the_other() -> None:
    one = only(told(*pair(bob={"rdma": OFF})))
    assert one.seen == "`rdma_ctl status`: enabled on ada, disabled on bob"
    assert one.remedy.startswith("on bob: in macOS Recovery")
    assert one.unknown == ""
    old = only(told(*pair(bob={"rdma": NONE, "os_version": "26.1"})))
    assert old.remedy.startswith("on bob: update macOS first")
    unsure = only(told(*pair(bob={"rdma": OFF, "os_version": ""})))
    assert unsure.unknown == "whether macOS is 26.2 or newer on bob"


def test_what_was_told_of_this_node_is_not_told_of_its_cable_again() -> None:
    found = cables(pair(bob={"rdma": OFF}))
    assert of_cables(found, "node-bob") == []
    assert short(of_cables(found, "node-ada")) == [(WARNING, ONE_END)]
    assert of_cables(found, "node-cleo") == []
    # Without a version there was no advice.
    assert short(of_cables(cables(pair(bob={"rdma": OFF, "os_version": ""})), "node-bob")) == [(WARNING, ONE_END)]


def test_a_slow_cable_is_told_with_the_dock_between_and_what_is_not_known() -> None:
    direct = only(told(*pair(speed_gbps=40)))
    assert direct.seen.endswith("40 Gb/s, receptacle 2 (en3) of ada and receptacle 2 (en3) of bob")
    assert direct.unknown == "whether it is the cable or a dock that neither end shows"
    behind = SeenMac("uuid-b", "MacBook Pro", "Mac16,5", ("ThunderBay Flex 8",))
    ada, bob = pair(speed_gbps=40)
    ada = mac("ada", port("uuid-a", "uuid-b", speed_gbps=40, macs=(behind,), devices=("ThunderBay Flex 8",)))
    docked = only(told(ada, bob))
    assert "ThunderBay Flex 8 between them may be of Thunderbolt 4" in docked.why
    assert docked.unknown == "whether it is the cable or ThunderBay Flex 8"


HUB, DOCK = "Kestrel Hub 5", "Plover Dock TB5"


def behind(*hubs: str) -> tuple[Mac, Mac]:
    """A pair with these between, from ada to bob."""
    seen = SeenMac("uuid-b", "MacBook Pro", "Mac16,5", hubs)
    return mac("ada", port("uuid-a", "uuid-b", macs=(seen,), devices=hubs)), pair()[1]


def test_one_hub_is_fine_and_a_chain_of_them_is_not() -> None:
    assert told(*behind(HUB)) == []
    one = only(told(*behind(HUB, DOCK)))
    assert short([one]) == [(WARNING, "2 hubs in a chain between ada and bob: Kestrel Hub 5 and Plover Dock TB5")]
    assert "plug in a direct cable, or leave one hub between" in one.remedy
    assert "kernel panics" in one.why
    assert "not confirmed" in one.unknown


def test_macs_that_share_a_port_are_noted_once_at_each_of_them() -> None:
    seen = tuple(SeenMac(uuid, "MacBook Pro", "Mac16,5", (HUB,)) for uuid in ("uuid-b", "uuid-c"))
    ada = mac("ada", port("uuid-a", "uuid-b", macs=seen, devices=(HUB,)))
    bob, cleo = mac("bob", port("uuid-b", "uuid-a")), mac("cleo", port("uuid-c", "uuid-a"))
    found = cables([ada, bob, cleo])
    for about in (None, ada.node, bob.node, cleo.node):
        assert short(of_cables(found, about)) == [(NOTE, "2 Macs share Kestrel Hub 5 at receptacle 2 (en3) of ada")]
    assert of_cables(found, "node-dora") == []


BRIDGE = Bridge("bridge0", ("en3",), "Thunderbolt Bridge", True)


@pytest.mark.parametrize("bridged", ["ada", "bob"])
def test_a_cable_under_a_bridge_is_not_plugged_in_anew_before_the_bridge_lets_go(bridged: str) -> None:
    out = f"with en3 of {bridged} out of bridge0"
    with_bridge: dict[str, Any] = {bridged: {"bridges": (BRIDGE,)}}
    assert out in only(told(*pair(**with_bridge, speed_gbps=40))).remedy
    ada, bob = pair(**with_bridge, rdma_port=DOWN)
    assert out in only(of_down_ports(ada, cables([ada, bob]))).remedy


STUCK, BACK = port("uuid-a", "uuid-b", rdma_port=DOWN), port("uuid-b", "uuid-a")
PORTS: dict[str, tuple[Mac, list[Mac], list[str]]] = {
    "both ends have RDMA": (mac("ada", STUCK), [mac("bob", BACK)], [""]),
    "the other end does not tell": (
        mac("ada", STUCK),
        [mac("bob", BACK, rdma=SILENT)],
        ["whether RDMA is enabled on bob: `thunderline doctor` there"],
    ),
    "the other end is no node": (
        mac("ada", STUCK),
        [],
        ["whether RDMA is enabled on MacBook Pro: `thunderline doctor` there"],
    ),
    "the other end has it off": (mac("ada", STUCK), [mac("bob", BACK, rdma=OFF)], []),
    "the other end is too old": (mac("ada", STUCK), [mac("bob", BACK, rdma=NONE)], []),
    "the other end is Thunderbolt 4": (
        mac("ada", replace(STUCK, speed_gbps=40)),
        [mac("bob", replace(BACK, speed_gbps=40), **TB4)],
        [],
    ),
    "the other end is the port next to Ethernet": (
        mac("ada", STUCK),
        [mac("bob", port("uuid-b", "uuid-a", 1), model="Mac15,14", model_name="Mac Studio")],
        [],
    ),
    "this end is the port next to Ethernet": (
        mac("ada", replace(STUCK, receptacle="1", interface="en2"), model="Mac15,14", model_name="Mac Studio"),
        [mac("bob", BACK)],
        [],
    ),
    "RDMA is off here": (mac("ada", STUCK, rdma=OFF), [mac("bob", BACK)], []),
    "the port is active": (mac("ada", port("uuid-a", "uuid-b")), [mac("bob", BACK)], []),
    "the state of the port is not told": (
        mac("ada", replace(STUCK, rdma_port=RdmaPortState.UNKNOWN)),
        [mac("bob", BACK)],
        [],
    ),
    "nothing is plugged in": (mac("ada", port("uuid-a", rdma_port=DOWN)), [mac("bob")], []),
}


@pytest.mark.parametrize(("one", "others", "expected"), PORTS.values(), ids=PORTS.keys())
def test_an_rdma_port_that_is_down_with_a_cable_in(one: Mac, others: list[Mac], expected: list[str]) -> None:
    found = of_down_ports(one, cables([one, *others]))
    assert short(found) == [(WARNING, "rdma_en3 is down, and a cable is in")] * len(expected)
    assert [each.unknown for each in found] == expected
    assert all(each.seen == "`ibv_devinfo`: hca_id: rdma_en3, state: PORT_DOWN" for each in found)
    assert all("pulled out under load" in each.remedy for each in found)


def line(*builds: str, **more: Any) -> list[Mac]:
    """As many Macs in a row: a cable from each to the next."""
    names = [chr(ord("a") + number) for number in range(len(builds))]
    found = []
    for number, (name, build) in enumerate(zip(names, builds, strict=True)):
        ports = []
        if number:
            ports.append(port(f"{name}-left", f"{names[number - 1]}-right", 2))
        if number + 1 < len(builds):
            ports.append(port(f"{name}-right", f"{names[number + 1]}-left", 3))
        found.append(mac(name, *ports, os_build=build, **more))
    return found


BUILDS: dict[str, tuple[list[Mac], list[str]]] = {
    "one build": (line("25C61", "25C61", "25C61"), []),
    "two builds": (line("25C61", "25D50"), ["different builds of macOS where RDMA may join a and b"]),
    "over others too": (
        line("25C61", "25C61", "25D50"),
        ["different builds of macOS where RDMA may join a, b and c"],
    ),
    "no build is told": (line("", "25C61"), []),
    "without RDMA it does not matter": (line("25C61", "25D50", rdma=NONE), []),
    "without a cable it does not matter": ([mac("a", os_build="1"), mac("b", os_build="2")], []),
}


@pytest.mark.parametrize(("macs", "expected"), BUILDS.values(), ids=BUILDS.keys())
def test_builds_of_one_group(macs: list[Mac], expected: list[str]) -> None:
    assert short(of_builds(macs, cables(macs))) == [(WARNING, what) for what in expected]


def test_each_build_is_told_with_its_nodes_and_whose_is_not_known() -> None:
    macs = line("25C61", "25D50", "", "25C61")
    one = only(of_builds(macs, cables(macs)))
    assert one.seen == "`sw_vers`: BuildVersion 25C61 on a and d and BuildVersion 25D50 on b"
    assert one.unknown == "which build runs on c"


def test_only_the_group_of_a_node_is_told_where_that_is_asked_for() -> None:
    first, second = line("25C61", "25D50"), [replace(one, node=f"{one.node}2") for one in line("1", "1")]
    other = [mac("x", port("u1", "u2"), os_build="1"), mac("y", port("u2", "u1"), os_build="2")]
    macs = [*first, *other]
    found = cables(macs)
    assert [[one.name for one in group] for group in groups(macs, found)] == [["a", "b"], ["x", "y"]]
    assert len(of_builds(macs, found)) == 2
    assert only(of_builds(macs, found, "node-a")).what.endswith("a and b")
    assert of_builds([*macs, *second], found, "node-a2") == []
