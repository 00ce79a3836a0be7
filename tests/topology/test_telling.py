"""The topology as callers get it: an order, a choice and a reason for each link; every try; lost cables; rails."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from thunderline.cluster.graph import CableEnd, Graph, Outcome, Tried, Version, cable
from thunderline.cluster.limits import DEFAULTS
from thunderline.cluster.links import Link, LinkState, Mark
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End, Path
from thunderline.cluster.rails import rails_over
from thunderline.process.changes import Changes
from thunderline.process.interfaces import Interface
from thunderline.topology import measures
from thunderline.topology.knowledge import Knowledge
from thunderline.topology.members import Members
from thunderline.topology.ports import Told, ports_of
from thunderline.topology.service import TopologyService
from thunderline.topology.telling import Teller, abridged, cable_of, chosen
from thunderline.v1 import cluster_pb2, topology_pb2
from topology.scenes import ADDRESSES, NAMES, A, B, C, link, port, straight

TB, ETH, VPN = Medium.THUNDERBOLT, Medium.ETHERNET, Medium.VPN
CABLE = cable(CableEnd(A, "en5", "", "2"), CableEnd(B, "en5"))
CARD = Interface("en5", TB, ("192.168.4.1",), True, 9000)
TRIED = Tried(A, B, ADDRESSES[TB][0], Outcome.TIMED_OUT, 110, 2)
ANSWERED, REFUSED = topology_pb2.PROBE_OUTCOME_ANSWERED, topology_pb2.PROBE_OUTCOME_REFUSED
BACK = Tried(B, A, ADDRESSES[TB][1], Outcome.REFUSED, 111, 2)


def knowing(*links: Link, tried: tuple[Tried, ...] = ()) -> Knowledge:
    known = Knowledge(A, 3, {}, 2.0)
    known.members = Members(names={A: "studio", B: "mini"}, owners={(B, ADDRESSES[TB][0]): "en5"})
    known.graph = Graph(links, tried, (CABLE,), (CABLE,), (B,))
    known.by_pair = {(A, B): links} if links else {}
    known.chosen = {(A, B): links[0].id} if links else {}
    known.version = Version(3, 8)
    return known


def told(known: Knowledge) -> topology_pb2.Topology:
    return Teller().topology(known, [CARD], {(B, ADDRESSES[TB][0]): 1e9}, complete=True)


def test_links_come_in_their_order_with_what_they_count_as_and_why() -> None:
    slow, lan, down = link(TB, 40, LinkState.DEGRADED), link(ETH, 0.5), link(VPN, 50, LinkState.DOWN)
    found = told(knowing(lan, down, slow)).links
    assert [one.peer_address for one in found] == [ADDRESSES[medium][0] for medium in (ETH, TB, VPN)]
    assert [one.chosen for one in found] == [True, False, False]
    assert [one.counts_as for one in found] == [
        cluster_pb2.MEDIUM_ETHERNET,
        cluster_pb2.MEDIUM_WIFI,
        cluster_pb2.MEDIUM_VPN,
    ]
    assert found[1].why.startswith("after 192.168.1.2: ETHERNET before THUNDERBOLT (as WIFI); DEGRADED: 40 ms")
    assert found[2].why.startswith("DOWN")
    assert (found[1].local_interface, found[1].peer_interface, found[1].rtt_us) == (NAMES[TB], NAMES[TB], 40_000)


async def test_who_wants_the_chosen_links_only_hears_nothing_of_an_rtt() -> None:
    lan, cable_link = link(ETH, 0.5), link(TB, 0.2)
    known, changes = knowing(lan), Changes()
    nothing: Any = None

    def now() -> topology_pb2.Topology:
        return chosen(known, complete=True)

    service = TopologyService(changes, lambda: told(known), now, lambda: known.version, nothing, nothing, nothing)
    watch = service.WatchTopology(topology_pb2.WatchTopologyRequest(chosen_only=True), None)
    first = (await anext(watch)).topology
    assert [(one.to_node_id, one.peer_address, one.chosen) for one in first.links] == [(B, ADDRESSES[ETH][0], True)]
    assert (first.node_id, first.complete, list(first.incomplete_node_ids), len(first.attempts)) == (A, True, [B], 0)
    waiting = asyncio.ensure_future(anext(watch))
    known.graph, known.version = replace(known.graph, links=(link(ETH, 0.9),)), Version(3, 9)
    changes.notify()
    await asyncio.sleep(0.3)
    assert not waiting.done()
    known.chosen = {(A, B): cable_link.id}
    changes.notify()
    second = (await asyncio.wait_for(waiting, 5)).topology
    assert [one.peer_address for one in second.links] == [ADDRESSES[TB][0]]
    changes.stop()


def test_marks_are_told_by_their_names() -> None:
    one = link(TB, 0.05)
    odd = Link(*one.id, TB, LinkState.UP, 50, straight(TB), marks=frozenset(Mark))
    (found,) = told(knowing(odd)).links
    assert list(found.marks) == [
        topology_pb2.LINK_MARK_ASYMMETRIC_ROUTE,
        topology_pb2.LINK_MARK_ONE_SIDED,
        topology_pb2.LINK_MARK_UNADVERTISED,
    ]
    assert [topology_pb2.LinkMark.Name(one) for one in found.marks] == [f"LINK_MARK_{mark.name}" for mark in Mark]


def test_every_try_is_told_and_when_only_of_this_node() -> None:
    found = told(knowing(tried=(TRIED, BACK))).attempts
    assert [one.sentence for one in found] == [
        "no answer (ETIMEDOUT)",
        "refused: the host is there, but no topology listens (ECONNREFUSED)",
    ]
    assert [one.HasField("tried_at") for one in found] == [True, False]
    assert found[0].tried_at.ToSeconds() == 10**9


OTHERS = [
    topology_pb2.AddressAttempt(from_node_id=B, to_node_id=C, address="10.0.0.3", outcome=ANSWERED),
    topology_pb2.AddressAttempt(from_node_id=B, to_node_id=C, address="10.0.0.9", outcome=REFUSED),
]
OTHER_LINKS = [
    topology_pb2.Link(from_node_id=B, to_node_id=C, peer_address="10.0.0.3", chosen=True),
    topology_pb2.Link(from_node_id=B, to_node_id=C, peer_address="10.0.0.4"),
]
MINE = [topology_pb2.AddressAttempt(from_node_id=A, to_node_id=B, outcome=ANSWERED)]
MY_LINKS = [topology_pb2.Link(from_node_id=A, to_node_id=B), topology_pb2.Link(from_node_id=C, to_node_id=A)]
# What others see of each other that is left when there are so many bytes too many: tries, links.
LEFT = [(OTHERS, OTHER_LINKS), (OTHERS[1:], OTHER_LINKS), ([], OTHER_LINKS), ([], OTHER_LINKS[:1]), ([], [])]


@pytest.mark.parametrize(("tries", "links"), LEFT[1:], ids=["answered tries", "all tries", "links not used", "links"])
def test_what_others_see_of_each_other_is_left_out_of_a_message_that_is_too_large(
    tries: list[topology_pb2.AddressAttempt], links: list[topology_pb2.Link]
) -> None:
    def message(
        tries: Sequence[topology_pb2.AddressAttempt], links: Sequence[topology_pb2.Link], is_abridged: bool
    ) -> topology_pb2.Topology:
        return topology_pb2.Topology(
            node_id=A, attempts=[*MINE, *tries], links=[*MY_LINKS, *links], abridged=is_abridged
        )

    whole, expected = message(OTHERS, OTHER_LINKS, False), message(tries, links, True)
    for bytes_max, told in ((whole.ByteSize(), whole), (expected.ByteSize(), expected)):
        assert abridged(message(OTHERS, OTHER_LINKS, False), bytes_max) == told


def test_no_topology_is_larger_than_a_message_may_be() -> None:
    text, count = "x" * 600, 32 * 1024
    many = topology_pb2.Topology(node_id=A, attempts=MINE, links=MY_LINKS)
    many.attempts.extend([topology_pb2.AddressAttempt(from_node_id=B, to_node_id=C, sentence=text)] * count)
    many.links.extend([topology_pb2.Link(from_node_id=B, to_node_id=C, why=text)] * count)
    found = topology_pb2.GetTopologyResponse(topology=abridged(many))
    assert found.ByteSize() <= DEFAULTS.message_bytes_max
    assert (list(found.topology.attempts), list(found.topology.links)) == (MINE, MY_LINKS)


def test_the_peers_failed_tries_are_a_part_of_the_reason() -> None:
    (found,) = told(knowing(link(TB, 0.05), tried=(BACK,))).links
    assert "one direction only" in found.why


def test_a_lost_cable_comes_with_its_remedy_and_the_nodes_by_name() -> None:
    found = told(knowing(link(ETH, 0.5)))
    (lost,) = found.cables
    assert lost.lost
    assert "en5 of studio (receptacle 2) and en5 of mini" in lost.sentence
    assert list(found.incomplete_node_ids) == [B]
    assert (found.version.start, found.version.number, found.complete) == (3, 8, True)
    assert found.interfaces[0].name == "en5"


def test_what_did_not_change_is_the_same_and_what_did_is_not() -> None:
    teller, known = Teller(), knowing(link(ETH, 0.5), link(VPN, 50))
    before = teller.topology(known, [], {}, complete=True)
    assert teller.topology(known, [], {}, complete=True) == before
    known.chosen = {(A, B): known.by_pair[(A, B)][1].id}
    after = teller.topology(known, [], {}, complete=True)
    assert [one.chosen for one in after.links] == [False, True]
    known.members = Members(owners={(B, ADDRESSES[ETH][0]): "en9"})
    assert "belongs to en9" in teller.topology(known, [], {}, complete=True).links[0].why


A4, B2 = port("a4", "en5", "b2"), port("b2", "en3", "a4", speed_gbps=40)
HUBS = ("Hub", "Dock")
NO_UUIDS = (
    (A, (replace(A4, uuid="", macs=port("", "", "", behind=HUBS).macs),)),
    (B, (replace(B2, uuid="", macs=()),)),
)
# What ports tell, the interfaces of a link from A to B: receptacles, speed, hubs; None where no cable is known.
OF_LINKS: dict[str, tuple[Told, str, str, tuple[str, str, int, tuple[str, ...]] | None]] = {
    "both ends tell": (((A, (A4,)), (B, (B2,))), "en5", "en3", ("4", "2", 40, ())),
    "one node tells of its ports": (((A, (A4,)),), "en5", "en3", ("4", "", 80, ())),
    "the dialled node does": (((B, (B2,)),), "en5", "en3", ("", "2", 40, ())),
    "hubs between": (
        ((A, (port("a4", "en5", "b2", behind=HUBS),)), (B, (B2,))),
        "en5",
        "en3",
        ("4", "2", 40, HUBS),
    ),
    "hubs that only the other end sees": (
        ((A, (A4,)), (B, (port("b2", "en3", "a4", behind=HUBS[::-1]),))),
        "en5",
        "en3",
        ("4", "2", 80, HUBS),
    ),
    "ports without UUIDs": (NO_UUIDS, "en5", "en3", ("4", "2", 40, HUBS)),
    "a bridge over the only cable": (((A, (A4,)), (B, (B2,))), "bridge0", "bridge0", ("4", "2", 40, ())),
    "nobody tells of ports": ((), "en5", "en3", None),
    "other interfaces than the ports'": (((A, (A4,)), (B, (B2,))), "en0", "en0", None),
    "a port here, and there none": (((A, (A4,)), (B, (B2,))), "en5", "en0", None),
    "a third node's bridge between": (
        ((A, (port("a4", "en5", "c1"),)), (B, (B2,)), (C, (port("c1", "en1", "a4"),))),
        "en5",
        "en3",
        None,
    ),
}


@pytest.mark.parametrize(("told_ports", "leaves", "arrives", "expected"), OF_LINKS.values(), ids=OF_LINKS.keys())
def test_a_link_is_told_with_its_cable(
    told_ports: Told, leaves: str, arrives: str, expected: tuple[str, str, int, tuple[str, ...]] | None
) -> None:
    medium = ETH if leaves == "en0" else TB
    there = replace(link(TB, 0.05), path=Path(End(leaves, medium), End(arrives, ETH if arrives == "en0" else TB)))
    found = cable_of(there, ports_of(told_ports))
    assert (
        found and (found.local_receptacle, found.peer_receptacle, found.speed_gbps, tuple(found.behind))
    ) == expected


DOCKED = replace(A4, devices=("Dock",))
# What ports tell -> whether it is not known that they see each other, and whether a hub may be between.
SEEN: dict[str, tuple[Told, bool, bool]] = {
    "each sees the other": (((A, (A4,)), (B, (B2,))), False, False),
    "one of them does": (((A, (A4,)), (B, (replace(B2, macs=()),))), True, False),
    "one node tells of its ports": (((A, (A4,)),), True, False),
    "ports without UUIDs": (((A, (replace(A4, uuid=""),)), (B, (replace(B2, uuid=""),))), True, False),
    "a dock at one of them": (((A, (DOCKED,)), (B, (B2,))), False, True),
    "a dock at the only one that tells": (((A, (DOCKED,)),), True, True),
    "a dock that is named between": (
        ((A, (replace(DOCKED, macs=port("", "", "b2", behind=HUBS).macs),)), (B, (B2,))),
        False,
        False,
    ),
}


@pytest.mark.parametrize(("told_ports", "one_sided", "hub_unknown"), SEEN.values(), ids=SEEN.keys())
def test_what_nobody_has_seen_of_a_cable_is_said(told_ports: Told, one_sided: bool, hub_unknown: bool) -> None:
    there = replace(link(TB, 0.05), path=Path(End("en5", TB), End("en3", TB)))
    found = cable_of(there, ports_of(told_ports))
    assert found is not None
    assert (found.one_sided, found.hub_unknown) == (one_sided, hub_unknown)


def test_the_way_back_is_told_from_its_own_end() -> None:
    ports = ports_of(((A, (port("a4", "en5", "b2", behind=HUBS),)), (B, (B2,))))
    back = replace(link(TB, 0.05), from_node=B, to_node=A, path=Path(End("en3", TB), End("en5", TB)))
    found = cable_of(back, ports)
    assert found is not None
    assert (found.local_receptacle, found.peer_receptacle, tuple(found.behind)) == ("2", "4", HUBS[::-1])


def test_ports_come_with_the_links_the_cables_and_the_rails() -> None:
    teller, known = Teller(), knowing(replace(link(TB, 0.05), path=Path(End("en5", TB), End("en3", TB))))
    before = teller.topology(known, [], {}, complete=True)
    assert not before.links[0].HasField("cable") and not before.rails
    told_ports = ((A, (A4,)), (B, (B2,)))
    known.graph = replace(known.graph, ports=told_ports, rails=rails_over(ports_of(told_ports).plugged))
    after = teller.topology(known, [], {}, complete=True)
    assert after.links[0].cable.local_receptacle == "4"
    assert [(one.one.device, one.other.device, one.speed_gbps) for one in after.rails] == [("rdma_en5", "rdma_en3", 40)]
    assert "the port of studio sees a Mac" in after.cables[0].sentence


def shown(name: str, medium: Medium) -> float | None:
    return REGISTRY.get_sample_value(f"thunderline_link_{name}", {"peer": B, "medium": medium.name})


def test_metrics_have_the_best_link_of_a_medium_and_forget_who_is_gone() -> None:
    fast, slow, vpn = link(ETH, 0.5), link(ETH, 12, LinkState.DEGRADED, "192.168.1.9"), link(VPN, 50)
    measures.show_links([slow, vpn, fast], [vpn.id])
    assert [shown("rtt_seconds", medium) for medium in (ETH, VPN)] == [pytest.approx(0.0005), pytest.approx(0.05)]
    assert [shown("state", medium) for medium in (ETH, VPN)] == [1, 1]
    assert [shown("chosen", medium) for medium in (ETH, VPN)] == [0, 1]
    measures.show_links([slow], [slow.id])
    assert [shown("state", medium) for medium in (ETH, VPN)] == [2, None]
    measures.show_links([], [])
    assert shown("chosen", ETH) is None
