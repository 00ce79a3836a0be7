"""Clusters of the field: two Macs and one cable in every state of knowledge, four Macs over a hub, a VPN beside all."""

import pytest

from scheduler.placing.scenes import (
    MAC,
    aged,
    cable,
    cable_address,
    cable_way,
    dials,
    failed,
    lan,
    link,
    model,
    node,
    nodes,
    placed,
    rail,
    situation,
    told,
    vpn,
    where,
)
from thunderline.cluster import NodeId
from thunderline.cluster.graph import Cable, CableEnd, Graph, Tried
from thunderline.cluster.machine_facts import RdmaPortState, RdmaState, SeenMac, ThunderboltPort
from thunderline.cluster.media import Medium
from thunderline.cluster.rails import plugged_cables, rails_over
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.placing.values import (
    Backend,
    Policy,
    Reason,
    Situation,
    Strategy,
    Verdict,
    WaitFor,
)

A, B = NodeId("a"), NodeId("b")
PINNED = Policy(strategy=Strategy.TENSOR, backend=Backend.JACCL)
# Too large for one of two Macs of 512 GB; latent attention, so that the KV of a token is the same on every rank.
LARGE = model(61, 7.0, kv_head_count=64, tensor_kv_whole_bytes=61 * 4096)
ADDRESSES = {"a": "10.10.0.1", "b": "10.10.0.2"}


def port(name: str, saw: bool) -> ThunderboltPort:
    other = "b" if name == "a" else "a"
    return ThunderboltPort(
        uuid=f"port-{name}",
        interface="en5",
        rdma_device="rdma_en5",
        rdma_port=RdmaPortState.ACTIVE,
        speed_gbps=80,
        macs=(SeenMac(f"port-{other}"),) if saw else (),
    )


def two_macs(saw: str, probed: str, seconds: float, failures: int = 2, **facts: object) -> Situation:
    """One cable, rdma_en5 at both ends, 10.10.0.1 and .2, no LAN. `saw`, `probed`: which of a and b did."""
    links = [link(one, other, ADDRESSES[other], Medium.THUNDERBOLT) for one, other in ("ab", "ba") if one in probed]
    tried = [failed(one, other, ADDRESSES[other], failures) for one, other in ("ab", "ba") if one not in probed]
    seen = rails_over(plugged_cables({NodeId(name): [port(name, name in saw)] for name in "ab"}))
    return aged(situation(nodes("ab", 384, **facts), links, seen, tried), seconds)


SUBSETS = [(saw, probed) for saw in ("", "a", "b", "ab") for probed in ("", "a", "b", "ab")]


def named(subset: tuple[str, str]) -> str:
    saw, probed = ({"": "neither", "ab": "both"}.get(one, one) for one in subset)
    return f"{saw} saw the cable, {probed} probed"


@pytest.mark.parametrize(("saw", "probed"), SUBSETS, ids=[named(one) for one in SUBSETS])
def test_a_pinned_tensor_group_over_rails_needs_one_end_that_saw_the_cable(saw: str, probed: str) -> None:
    early, late = (plan(two_macs(saw, probed, seconds), LARGE, PINNED) for seconds in (3, 10))
    if not saw:
        for one in (early, late):
            assert one.verdict is Verdict.WAITING
            assert [(wait.what, wait.nodes) for wait in one.waits] == [(WaitFor.LINKS, (A, B))]
            assert "no rail between a and b" in one.why
        return
    # Where neither has probed, a probe may still cross the cable.
    assert early.verdict is (Verdict.PLACED if probed else Verdict.WAITING)
    if not probed:
        assert {wait.nodes for wait in early.waits} == {(A, B), (B, A)}
    found = placed(late)
    assert found.devices == (((), ("rdma_en5",)), (("rdma_en5",), ()))
    # Rank 0 is whom somebody can dial.
    assert found.nodes[0] == ("b" if probed == "a" else "a")
    assert found.coordinator == {"": "", "a": "10.10.0.2"}.get(probed, "10.10.0.1")


def test_of_the_sixteen_subsets_twelve_are_placed() -> None:
    found = [plan(two_macs(saw, probed, 10), LARGE, PINNED).verdict for saw, probed in SUBSETS]
    assert found.count(Verdict.PLACED) == 12 and found.count(Verdict.WAITING) == 4


@pytest.mark.parametrize("saw", ["", "a", "b", "ab"])
def test_unpinned_it_is_a_pipeline_over_the_ring_where_nobody_saw_the_cable(saw: str) -> None:
    found = plan(two_macs(saw, "ab", 3), LARGE)
    assert where(found) == ("tensor jaccl a b" if saw else "pipeline ring a b")
    if not saw:
        assert "not tensor over jaccl: no rail between a and b" in placed(found).reasons


def test_a_ring_needs_both_directions_and_is_waited_for() -> None:
    found = plan(two_macs("", "a", 30), LARGE)
    assert found.verdict is Verdict.WAITING
    assert (B, A) in {wait.nodes for wait in found.waits}
    assert "b → a: 10.10.0.1 TIMED_OUT, errno 110" in found.why


def test_one_direction_without_a_side_channel_makes_the_dialled_one_rank_0() -> None:
    found = plan(two_macs("ab", "b", 3, takes_side_channel=False), LARGE, PINNED)
    assert where(found) == "tensor jaccl a b"
    assert dials(found) == ["b→a 10.10.0.1"]


def test_no_direction_without_a_side_channel_is_refused_with_that_reason() -> None:
    found = plan(two_macs("ab", "", 30, takes_side_channel=False), LARGE, PINNED)
    assert found.verdict is Verdict.WAITING
    assert [one.reason for one in found.rejected if one.nodes == (A, B)] == [Reason.COORDINATOR]
    assert "TIMED_OUT, errno 110" in told(found, "ab")


# What is known of two Macs whose cable no probe has crossed yet, with a VPN beside it.
UNPROBED: dict[str, Situation] = {
    "a rail joins them": situation(nodes("ab", 384), vpn("ab"), [rail("a", "b")]),
    "a cable is remembered": situation(
        nodes("ab", 384), vpn("ab"), cables=(Cable(CableEnd(A, "en5"), CableEnd(B, "en5")),)
    ),
    "their addresses were not tried yet": situation(
        nodes("ab", 384),
        vpn("ab"),
        tried=[Tried(A, B, "10.1.2.2"), Tried(B, A, "10.1.2.1")],
    ),
    "a first try has failed": situation(
        nodes("ab", 384), vpn("ab"), tried=[failed("a", "b", "10.1.2.2", 1), failed("b", "a", "10.1.2.1", 1)]
    ),
    "nothing was tried at all": Situation(tuple(nodes("ab", 384)), Graph()),
}


@pytest.mark.parametrize("found", UNPROBED.values(), ids=UNPROBED.keys())
@pytest.mark.parametrize("seconds", [0.0, 0.5, 4.0, 9.9])
def test_cables_that_no_probe_has_crossed_are_waited_for(found: Situation, seconds: float) -> None:
    """Neither IMPOSSIBLE nor over the VPN."""
    waiting = plan(aged(found, seconds), LARGE)
    assert waiting.verdict is Verdict.WAITING and waiting.placement is None
    assert {wait.nodes for wait in waiting.waits} == {(A, B), (B, A)}
    assert {wait.what for wait in waiting.waits} == {WaitFor.LINKS}


def test_nobody_waits_longer_than_ten_seconds() -> None:
    no_rdma = [node(name, 384, rdma=RdmaState.DISABLED) for name in "ab"]
    found = situation(no_rdma, vpn("ab"), [rail("a", "b")])
    assert where(plan(aged(found, 10.0), LARGE)) == "pipeline ring a b"
    assert placed(plan(aged(found, 10.0), LARGE)).slow


def test_the_later_of_two_counts() -> None:
    members = [node("a", 384), node("b", 384, alive_for_s=2.0)]
    assert plan(situation(members, vpn("ab"), [rail("a", "b")]), LARGE).verdict is Verdict.WAITING


def test_rails_need_no_second_direction_and_a_ring_waits_for_it() -> None:
    """A probe has crossed the cable from a to b, none the other way yet: only the VPN goes there."""
    links = [*cable_way("a", "b"), *vpn("ab")]
    here = situation(nodes("ab", 384), links, [rail("a", "b")], [failed("b", "a", cable_address("a", "b"))])
    assert where(plan(aged(here, 3.0), LARGE)) == "tensor jaccl a b"
    waiting = plan(aged(here, 3.0), LARGE, Policy(backend=Backend.RING))
    assert [wait.nodes for wait in waiting.waits] == [(B, A)]
    assert where(plan(aged(here, 10.0), LARGE, Policy(backend=Backend.RING))) == "pipeline ring a b"


def test_a_model_that_fits_one_node_waits_for_no_link() -> None:
    found = aged(Situation(tuple(nodes("ab", 384)), Graph()), 0.0)
    assert where(plan(found, model())) == "whole a"


# A and B by a cable, A and C through a hub, D by TCP only; a LAN and a VPN on all. What they may use is 75% of RAM.
FOUR = [node("a", 96), node("b", 96), node("c", 36), node("d", 96, backends=MAC, rdma=RdmaState.UNAVAILABLE)]
FOUR_LINKS = [*cable("a", "b"), *cable("a", "c", 0.5), *lan("abcd"), *vpn("abcd")]
FOUR_RAILS = [rail("a", "b", ("en3", "en5")), rail("a", "c", ("en4", "en2"), behind=("a hub",))]
# 48 and 12 heads divide by 2 and by 3.
THIRDS = {"head_count": 48, "kv_head_count": 12}


def four() -> Situation:
    return situation(FOUR, FOUR_LINKS, FOUR_RAILS)


def test_the_four_use_rails_where_they_have_them() -> None:
    assert where(plan(four(), model(120))) == "tensor jaccl a b"


def test_a_and_c_use_the_rail_through_the_hub() -> None:
    found = plan(four(), model(50), Policy(nodes=frozenset({NodeId("a"), NodeId("c")})))
    assert where(found) == "tensor jaccl a c"
    assert placed(found).devices == (((), ("rdma_en4",)), (("rdma_en2",), ()))


def test_three_without_a_rail_between_two_of_them_make_no_group_over_rails() -> None:
    three = frozenset(NodeId(name) for name in "abc")
    found = plan(four(), model(60, **THIRDS), Policy(nodes=three, strategy=Strategy.TENSOR, backend=Backend.JACCL))
    assert found.verdict is Verdict.WAITING
    assert "no rail between b and c" in told(found, "abc")
    assert [wait.nodes for wait in found.waits] == [(NodeId("b"), NodeId("c"))]


def test_the_ring_of_three_uses_both_cables_and_the_lan_once() -> None:
    three = frozenset(NodeId(name) for name in "abc")
    found = plan(four(), model(180, **THIRDS), Policy(nodes=three))
    assert placed(found).strategy is Strategy.PIPELINE and placed(found).backend is Backend.RING
    addresses = sorted(one.split()[1].rsplit(".", 1)[0] for one in dials(found))
    assert addresses == ["10.1.2", "10.1.3", "192.168.1"]
    assert "not pipeline over jaccl: no rail between b and c" in placed(found).reasons


@pytest.mark.parametrize("layers", range(20, 320, 20))
def test_a_node_without_rdma_is_in_no_group_over_rails(layers: int) -> None:
    found = plan(four(), model(layers))
    if found.placement is not None and found.placement.backend is Backend.JACCL:
        assert "d" not in found.placement.nodes


def test_hosts_without_a_cable_have_their_lan_address() -> None:
    """Not the VPN's, whichever came first."""
    pair = frozenset({NodeId("b"), NodeId("d")})
    for links in (FOUR_LINKS, FOUR_LINKS[::-1]):
        found = plan(situation(FOUR, links, FOUR_RAILS), model(120), Policy(nodes=pair))
        assert dials(found) == ["b→d 192.168.1.4", "d→b 192.168.1.2"]


def test_the_coordinator_has_a_lan_address_too() -> None:
    assert placed(plan(four(), model(120))).coordinator == "192.168.1.1"


def test_without_a_lan_the_coordinator_is_on_the_cable_before_the_vpn() -> None:
    links = [*cable("a", "b"), *vpn("ab")]
    found = plan(situation(nodes("ab"), links, [rail("a", "b")]), model(120))
    assert placed(found).coordinator == cable_address("a", "b")


def one_way_ring() -> Situation:
    """Only a→b→c→a can be dialled."""
    links = [*cable_way("a", "b"), *cable_way("b", "c"), *cable_way("c", "a")]
    tried = [failed(one, other, cable_address(other, one)) for one, other in ("ba", "cb", "ac")]
    return situation(nodes("abc", rdma=RdmaState.DISABLED), links, tried=tried)


def test_a_ring_that_can_be_dialled_one_way_is_that_ring_and_never_the_reverse() -> None:
    found = plan(one_way_ring(), model(180))
    assert where(found) == "pipeline ring a b c"
    assert dials(found) == ["a→b 10.1.2.2", "b→c 10.2.3.3", "c→a 10.1.3.1"]


def test_pairs_of_a_one_way_ring_are_refused_with_the_row() -> None:
    found = plan(one_way_ring(), model(120))
    assert where(found) == "pipeline ring a b c"
    assert "b → a: 10.1.2.1 TIMED_OUT, errno 110" in told(found, "ab")


def test_two_that_fit_over_a_vpn_do_not_come_before_three_by_cable() -> None:
    """d has the memory, and only the VPN."""
    members = [node(name, 48, rdma=RdmaState.DISABLED) for name in "abc"] + [node("d", 96), node("e", 96)]
    cables = [*cable("a", "b"), *cable("b", "c"), *cable("a", "c")]
    found = plan(situation(members, [*cables, *vpn("abcde", 1.0)]), model(120))
    assert sorted(placed(found).nodes) == ["a", "b", "c"] and not placed(found).slow
    assert "VPN" in told(found, "de")
