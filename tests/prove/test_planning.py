"""How long a plan takes on 8, 32 and 64 nodes that are all joined to each other, by LAN and VPN, some by cables."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from scheduler.placing.scenes import (
    GIB,
    LINUX,
    MAC,
    cable,
    lan,
    mesh_of_rails,
    model,
    node,
    placed,
    rail,
    situation,
    vpn,
)
from thunderline.cluster.graph import Tried
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.placing.values import Backend, Model, Policy, Situation, Strategy, Verdict

LIMITS_MS = {8: 10.0, 32: 100.0, 64: 500.0}
# By nodes: a third of a second for each row, so that a moment of a busy machine is no median.
ROUNDS = {8: 45, 32: 11, 64: 5}


def names(count: int) -> list[str]:
    return [f"n{number}" for number in range(1, count + 1)]


def mesh(count: int) -> Situation:
    """Each pair over a LAN, whose RTTs all differ, and over a VPN; neighbours by a cable."""
    here = names(count)
    links = [replace(one, rtt_us=400 + 7 * place % 3000) for place, one in enumerate(lan(here))]
    cables = [one for i, j in zip(here[::2], here[1::2], strict=True) for one in cable(i, j)]
    members = [node(name, 96 + place % 5, backends=LINUX) for place, name in enumerate(here)]
    return situation(members, [*links, *vpn(here), *cables])


def of_macs(count: int) -> Situation:
    """With rails over the cables."""
    here = mesh(count)
    pairs = zip(names(count)[::2], names(count)[1::2], strict=True)
    rails = tuple(rail(i, j) for i, j in pairs)
    members = tuple(replace(one, backends=MAC) for one in here.nodes)
    return replace(here, nodes=members, graph=replace(here.graph, rails=rails))


def over_a_vpn(count: int) -> Situation:
    here = names(count)
    return situation([node(name, backends=LINUX) for name in here], vpn(here))


def young(count: int) -> Situation:
    """ALIVE for 5 s, and one address of each that nobody has tried."""
    here = of_macs(count)
    untried = tuple(Tried(one.from_node, one.to_node, "10.99.0.1") for one in here.graph.links[: count * (count - 1)])
    return replace(
        here,
        nodes=tuple(replace(one, alive_for_s=5.0) for one in here.nodes),
        graph=replace(here.graph, tried=(*here.graph.tried, *untried)),
    )


def layers(share: float) -> Callable[[int], Model]:
    """A model for so large a share of what the nodes hold together: layers of 20 GiB, of which each has room for 4."""
    return lambda count: model(int(share * count * 4), 20.0)


def uneven(count: int) -> Model:
    """Of layers that are not alike, as large as half of the nodes hold."""
    of = layers(0.45)(count)
    return replace(of, layer_bytes=tuple((10 + place % 3 * 10) * GIB for place in range(of.layer_count)))


# The cluster, the model, what is wished for, and what comes out.
Case = tuple[Callable[[int], Situation], Callable[[int], Model], Policy, Verdict]
CASES: dict[str, Case] = {
    "it fits one node": (mesh, lambda count: model(40), Policy(), Verdict.PLACED),
    "it fits two by cable": (mesh, lambda count: model(120), Policy(), Verdict.PLACED),
    "it fits two over rails": (of_macs, lambda count: model(120), Policy(), Verdict.PLACED),
    "it needs half of the nodes": (mesh, layers(0.45), Policy(), Verdict.PLACED),
    "it needs half of the nodes, unlike layers": (mesh, uneven, Policy(), Verdict.PLACED),
    "it needs nearly all nodes": (mesh, layers(0.97), Policy(), Verdict.PLACED),
    "it needs half of the nodes, rails on some": (of_macs, layers(0.45), Policy(), Verdict.PLACED),
    "only a VPN": (over_a_vpn, layers(0.45), Policy(), Verdict.PLACED),
    "only a VPN, and it must be fast": (over_a_vpn, layers(0.45), Policy(requires_fast=True), Verdict.WAITING),
    "it is too large": (mesh, layers(1.5), Policy(), Verdict.IMPOSSIBLE),
    "rails are asked for, and join too few": (of_macs, layers(0.45), Policy(backend=Backend.JACCL), Verdict.WAITING),
    "a tensor group over TCP is asked for": (
        mesh,
        lambda count: model(300),
        Policy(strategy=Strategy.TENSOR),
        Verdict.PLACED,
    ),
    "links are not settled": (young, layers(0.45), Policy(), Verdict.WAITING),
}


def taken_ms(here: Situation, of: Model, policy: Policy) -> list[float]:
    """On a core: what others take of it meanwhile is no part of a plan."""
    found = []
    for _ in range(ROUNDS[len(here.nodes)]):
        begun_s = time.thread_time()
        plan(here, of, policy)
        found.append(1000 * (time.thread_time() - begun_s))
    return found


def table(rows: Sequence[tuple[str, list[float]]]) -> str:
    return "\n".join(f"{statistics.median(each):8.2f} ms  (at most {max(each):.2f})  {name}" for name, each in rows)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", LIMITS_MS)
def test_a_plan_takes(count: int, evidence: dict[str, Any]) -> None:
    rows = []
    for name, (cluster, of, policy, verdict) in CASES.items():
        here, wants = cluster(count), of(count)
        assert plan(here, wants, policy).verdict is verdict, name
        rows.append((name, taken_ms(here, wants, policy)))
    print(f"\n{count} nodes\n{table(rows)}")
    evidence[f"plan_ms_{count}_nodes"] = {name: round(statistics.median(each), 2) for name, each in rows}
    assert max(statistics.median(each) for _, each in rows) < LIMITS_MS[count]


def test_eight_joined_by_rails_to_each_other(evidence: dict[str, Any]) -> None:
    here = situation(
        [node(name) for name in "abcdefgh"], [*lan("abcdefgh"), *vpn("abcdefgh")], mesh_of_rails("abcdefgh")
    )
    rows = [(f"a model of {count} GiB", taken_ms(here, model(count), Policy())) for count in (120, 300, 600, 640, 2000)]
    assert len(placed(plan(here, model(640))).ranks) == 8
    print(f"\n8 nodes, rails between all\n{table(rows)}")
    evidence["plan_ms_8_nodes_all_rails"] = {name: round(statistics.median(each), 2) for name, each in rows}
    assert max(statistics.median(each) for _, each in rows) < LIMITS_MS[8]
