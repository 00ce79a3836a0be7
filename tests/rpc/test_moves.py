"""Where a connection goes next, and what is known of a peer's addresses."""

from collections.abc import Sequence

import pytest

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import target
from thunderline.rpc.moves import DIAL_COUNT_MAX, Held, Reach, best, in_order, reach, wanted
from thunderline.v1 import cluster_pb2, topology_pb2

A, B, C, D, E = "a:1", "b:1", "c:1", "d:1", "e:1"
IMPATIENT = True

# What there is, the peer's targets, the best, whether patience is over; what is tried then.
CASES: dict[str, tuple[Held, Sequence[str], str, bool, tuple[str, ...]]] = {
    # Nothing is dialled yet.
    "nothing is known of the peer": (Held(), [], "", IMPATIENT, ()),
    "the first of its addresses is dialled at once": (Held(), [A, B], "", False, (A,)),
    "the best is dialled at once, where it is known": (Held(), [A, B], B, False, (B,)),
    "the best is dialled also when the card does not name it": (Held(), [A], B, False, (B,)),
    # It works.
    "one that works stays while no link is known": (Held(B, True), [A, B], "", IMPATIENT, ()),
    "one that works and is the best stays": (Held(B, True), [A, B], B, IMPATIENT, ()),
    "a better one is dialled at once": (Held(B, True), [A, B], A, False, (A,)),
    "a better one is tried until it answers": (Held(B, True, (A,)), [A, B], A, IMPATIENT, (A,)),
    "what is not the best is not tried beside one that works": (Held(B, True, (C, D)), [A, B, C, D], A, False, (A,)),
    "what was tried is given up once the first works again": (Held(A, True, (B, C)), [A, B, C], "", IMPATIENT, ()),
    "one that works stays when the peer says nothing of itself": (Held(A, True), [], "", IMPATIENT, ()),
    "one that the peer has given up is left, though it works": (Held(A, True), [B, C], "", False, (B,)),
    "and it is left for the next one in turn": (Held(A, True, (B,)), [B, C], "", IMPATIENT, (B, C)),
    "but the best may be one that the card does not name": (Held(A, True), [B], A, IMPATIENT, ()),
    # It does not.
    "a role that restarts is waited for": (Held(A, False), [A, B], "", False, ()),
    "after that the next one is tried": (Held(A, False), [A, B, C], "", IMPATIENT, (B,)),
    "after that the best": (Held(A, False), [A, B, C], C, IMPATIENT, (C,)),
    "when the best is what broke, the next one": (Held(B, False), [A, B, C], B, IMPATIENT, (A,)),
    "they are tried one more each time": (Held(A, False, (B,)), [A, B, C, D], "", IMPATIENT, (B, C)),
    "what is tried stays so meanwhile": (Held(A, False, (B, C)), [A, B, C, D], "", False, (B, C)),
    "never too many: the oldest is given up": (Held(A, False, (B, C, D)), [A, B, C, D, E], "", IMPATIENT, (C, D, E)),
    "after the last comes the first": (Held(A, False, (C, D, E)), [A, B, C, D, E], "", IMPATIENT, (D, E, B)),
    "with few addresses all are tried": (Held(A, False, (B, C)), [A, B, C], "", IMPATIENT, (B, C)),
    "an address that is gone is not tried any more": (Held(A, False, (B, C)), [A, C], "", False, (C,)),
    "another port: there is nothing to wait for": (Held(A, False), [B], "", False, (B,)),
    "a peer with one address is dialled there, by its own channel": (Held(A, False), [A], "", IMPATIENT, ()),
}


@pytest.mark.parametrize(("held", "targets", "known", "is_over", "expected"), CASES.values(), ids=CASES.keys())
def test_what_is_tried(held: Held, targets: list[str], known: str, is_over: bool, expected: tuple[str, ...]) -> None:
    assert wanted(held, targets, known, is_over) == expected


def test_every_address_has_its_turn() -> None:
    targets = [f"{n}:1" for n in range(32)]
    held, seen = Held("0:1", False), set[str]()
    for _ in range(31):
        held = Held("0:1", False, wanted(held, targets, "", True))
        assert len(held.dialled) <= DIAL_COUNT_MAX
        seen |= set(held.dialled)
    assert seen == set(targets[1:])


def test_nothing_is_tried_twice_at_once() -> None:
    held = Held(A, False)
    for _ in range(7):
        held = Held(A, False, wanted(held, [A, B, B, C], B, True))
        assert len(set(held.dialled)) == len(held.dialled)


def test_the_best_comes_first_and_each_once() -> None:
    assert in_order([A, B, A, C], C) == (C, A, B)
    assert in_order([A, B]) == (A, B)


@pytest.mark.parametrize(
    ("address", "expected"),
    {"192.168.4.2": "192.168.4.2:7404", "fe80::2": "[fe80::2]:7404", "localhost": "localhost:7404"}.items(),
)
def test_a_target_is_written_as_grpc_reads_it(address: str, expected: str) -> None:
    assert target(address, 7404) == expected


CARD = cluster_pb2.NodeCard(
    endpoints=[cluster_pb2.RoleEndpoint(role="runner", host="127.0.0.1", port=7404)],
    addresses=["192.168.4.2", "fd00::2"],
)


def test_a_peer_is_reached_at_the_addresses_of_its_card() -> None:
    found = reach(CARD, "runner")
    assert found == Reach(("192.168.4.2", "fd00::2"), 7404)
    assert found.targets == ("192.168.4.2:7404", "[fd00::2]:7404")


def test_our_own_role_is_reached_at_its_host() -> None:
    assert reach(CARD, "runner", own=True) == Reach(("127.0.0.1",), 7404)


def test_a_role_that_does_not_run_there_is_reached_nowhere() -> None:
    assert reach(CARD, "scheduler") is None


def link(to: str, address: str, chosen: bool = True, from_node: str = "own") -> topology_pb2.Link:
    return topology_pb2.Link(from_node_id=from_node, to_node_id=to, peer_address=address, chosen=chosen)


def told(*links: topology_pb2.Link, incomplete: Sequence[str] = ()) -> topology_pb2.Topology:
    return topology_pb2.Topology(
        node_id="own", links=links, complete=not incomplete, incomplete_node_ids=list(incomplete)
    )


BEFORE = {NodeId("p"): "10.0.0.1"}
# What topology says, and what is known then.
TOLD: dict[str, tuple[topology_pb2.Topology, dict[str, str]]] = {
    "the chosen link from here": (told(link("p", "10.0.0.2")), {"p": "10.0.0.2"}),
    "not one that is not chosen": (told(link("p", "10.0.0.2", chosen=False)), {}),
    "not one from another node": (told(link("own", "10.0.0.9", from_node="p")), {}),
    "one for each peer": (told(link("p", "10.0.0.2"), link("q", "10.0.0.3")), {"p": "10.0.0.2", "q": "10.0.0.3"}),
    "a peer without a link is not known any more": (told(), {}),
    "but of a topology that has just started the last word stays": (told(incomplete=["own"]), {"p": "10.0.0.1"}),
    "and its new words count": (told(link("q", "10.0.0.3"), incomplete=["own"]), {"p": "10.0.0.1", "q": "10.0.0.3"}),
    "others that have just started do not matter": (told(incomplete=["p"]), {}),
}


@pytest.mark.parametrize(("topology", "expected"), TOLD.values(), ids=TOLD.keys())
def test_which_address_is_the_best(topology: topology_pb2.Topology, expected: dict[str, str]) -> None:
    assert best(BEFORE, topology) == expected
