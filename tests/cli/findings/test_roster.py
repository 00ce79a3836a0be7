"""Members that are away, twins, strangers, clocks, versions and settings: what is said of each."""

import pytest

from cli.findings.laws import NOTE, WARNING, WRONG, only, short, troubles
from thunderline.cli.findings.finding import Finding
from thunderline.cli.findings.roster import addresses, addresses_of_lost, alive_s, of_roster, peers, ports
from thunderline.cli.findings.trust import Own, Try
from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import CERTIFICATE_S, Bearer, Facts, validity
from thunderline.cluster.members import HAS_LEFT
from thunderline.v1 import cluster_pb2, discovery_pb2

NOW_S = 1_800_000_000.0
ME, BOB, CLEO = "me", "node-bob", "node-cleo"
FACTS = Facts(Bearer("home", Caller.MEMBER, ME), validity(NOW_S, CERTIFICATE_S), "a1")
OWN = Own("home", NOW_S, node_id=ME, facts=FACTS, scheduler=BOB, bind="0.0.0.0", home="/h")
FIRST = Own("home", NOW_S, node_id=ME, facts=FACTS, home="/h")
ALIVE, SUSPECT, DEAD, LEFT = (
    discovery_pb2.MEMBER_STATE_ALIVE,
    discovery_pb2.MEMBER_STATE_SUSPECT,
    discovery_pb2.MEMBER_STATE_DEAD,
    discovery_pb2.MEMBER_STATE_LEFT,
)


def member(
    node_id: str,
    state: "discovery_pb2.MemberState.ValueType" = ALIVE,
    problem: str = "",
    clock_ahead_s: float | None = None,
) -> discovery_pb2.Member:
    card = cluster_pb2.NodeCard(
        node_id=node_id,
        hostname=node_id.removeprefix("node-"),
        addresses=["10.0.0.2", "fd00::2"],
        endpoints=[cluster_pb2.RoleEndpoint(role="discovery", port=7401)],
    )
    return discovery_pb2.Member(card=card, state=state, problem=problem, clock_ahead_s=clock_ahead_s)


def roster(*others: discovery_pb2.Member, complete: bool = True, **more: object) -> discovery_pb2.Roster:
    members = [member(ME), *others]
    return discovery_pb2.Roster(node_id=ME, members=members, complete=complete, **more)  # type: ignore[arg-type]


def trouble(known: discovery_pb2.Roster, own: Own = FIRST, tries: dict[str, list[Try]] | None = None) -> list[Finding]:
    return troubles(of_roster(known, own, tries or {}))


def test_when_all_are_there_they_are_named() -> None:
    found = only(of_roster(roster(member(BOB), member(CLEO)), FIRST, {}))
    assert (found.severity.value, found.what, found.why) == (NOTE, "members that are ALIVE", "me, bob and cleo")


def test_a_node_by_itself_has_nothing_to_say() -> None:
    assert of_roster(roster(), FIRST, {}) == []


def test_before_the_roster_is_complete_nobody_is_missed() -> None:
    found = of_roster(roster(member(BOB, SUSPECT), complete=False), OWN, {})
    assert short(found) == [(NOTE, "members")]


AWAY = {
    "SUSPECT": (member(BOB, SUSPECT), WARNING, "bob is SUSPECT", "no card of it comes"),
    "DEAD": (member(BOB, DEAD, "nobody listens"), WARNING, "bob is DEAD", "nobody listens"),
    "the scheduler node": (
        member(BOB, DEAD),
        WRONG,
        "bob, the scheduler node, is DEAD: nothing new is served until it is back",
        "no card of it comes",
    ),
    "heard, not called": (
        member(BOB, ALIVE, "refused"),
        WARNING,
        "bob is heard, and cannot be called from here",
        "refused",
    ),
}


@pytest.mark.parametrize(("one", "severity", "what", "why"), AWAY.values(), ids=AWAY.keys())
def test_members_that_are_away(one: discovery_pb2.Member, severity: str, what: str, why: str) -> None:
    found = trouble(roster(one), OWN if "scheduler" in what else FIRST)
    assert short(found) == [(severity, what)]
    assert found[0].why == why
    assert "`thunderline doctor` there" in found[0].remedy


def test_a_node_that_was_taken_out_is_told_how_it_comes_back() -> None:
    problem = f"10.0.0.2:7401: node {ME} {HAS_LEFT}"
    found = trouble(roster(member(BOB, DEAD, problem)), OWN, {BOB: [Try("10.0.0.2:7401", facts=FACTS)]})[0]
    assert found.why == problem
    assert "`thunderline cluster join TOKEN` here" in found.remedy


def test_a_node_that_has_learnt_that_it_left_says_nothing_of_others() -> None:
    known = roster(member(BOB, DEAD))
    known.members[0].state = LEFT
    found = trouble(known, OWN)
    assert short(found) == [(WRONG, "this node has left its cluster")]
    assert "`thunderline cluster join TOKEN` here" in found[0].remedy


def test_who_has_left_is_not_missed() -> None:
    assert trouble(roster(member(BOB, LEFT, "nobody listens", 5.0))) == []


def test_only_the_scheduler_node_can_say_that_another_has_left() -> None:
    assert f"cluster leave {BOB}" in trouble(roster(member(BOB, DEAD)), FIRST)[0].remedy
    assert "cluster leave" not in trouble(roster(member(BOB, DEAD)), OWN)[0].remedy


def test_why_a_member_is_away_is_told_by_each_of_its_addresses() -> None:
    expired = Facts(Bearer("home", Caller.MEMBER, BOB), validity(NOW_S - CERTIFICATE_S, CERTIFICATE_S), "a1")
    tries = {BOB: [Try("10.0.0.2:7401", facts=expired), Try("[fd00::2]:7401", problem="no way there")]}
    found = trouble(roster(member(BOB, DEAD, "Socket closed")), FIRST, tries)[0]
    assert found.why == (f"10.0.0.2:7401: the certificate of node {BOB} has expired; [fd00::2]:7401: no way there")
    assert "`thunderline cluster join TOKEN` there" in found.remedy


def test_a_scheduler_node_that_nobody_has_heard() -> None:
    assert short(trouble(roster(), OWN)) == [(WRONG, "the scheduler node is not found")]
    assert trouble(roster(complete=False), OWN) == []
    assert trouble(roster(member(BOB)), OWN) == []
    assert short(trouble(roster(member(BOB, LEFT)), OWN)) == [(WRONG, "the scheduler node is not found")]


def test_twins() -> None:
    twin = discovery_pb2.Twin(node_id=BOB, shown=member(BOB).card, other=cluster_pb2.NodeCard(hostname="copy"))
    found = trouble(roster(member(BOB), twins=[twin]))
    assert short(found) == [(WRONG, "two nodes have one id")]
    assert "bob and copy" in found[0].why
    assert "node.json" in found[0].remedy


STRANGERS = {
    "a typo": ("homee", True, WARNING),
    "another case": ("Home", True, WARNING),
    "another cluster beside ours": ("work", True, NOTE),
    "the only one that is heard": ("work", False, WARNING),
}


@pytest.mark.parametrize(("name", "has_peer", "severity"), STRANGERS.values(), ids=STRANGERS.keys())
def test_a_stranger_may_be_a_typo(name: str, has_peer: bool, severity: str) -> None:
    stranger = discovery_pb2.Stranger(node_id="s", cluster_name=name, hostname="eve", addresses=["10.0.0.9:7401"])
    found = of_roster(roster(*([member(BOB)] if has_peer else []), strangers=[stranger]), FIRST, {})
    assert (severity, f"eve is heard, of another cluster, '{name}'") in short(found)
    assert all("is it a typo?" in one.remedy for one in troubles(found))


CLOCKS = {
    "within a second": ([0.9, -0.9], []),
    "one ahead": ([0.1, 2.0], ["the clock of cleo is 2.0 s ahead of this node's"]),
    "one behind": ([0.1, -2.0], ["the clock of cleo is 2.0 s behind this node's"]),
    "of two nodes nobody knows which": ([3.0], ["the clock of bob is 3.0 s ahead of this node's"]),
    "all others agree": ([5.0, 5.4], ["this node's clock is 5.4 s behind all others"]),
    "all others agree, earlier": ([-5.0, -5.4], ["this node's clock is 5.0 s ahead of all others"]),
    "nobody agrees": (
        [5.0, -5.0],
        ["the clock of bob is 5.0 s ahead of this node's", "the clock of cleo is 5.0 s behind this node's"],
    ),
}


@pytest.mark.parametrize(("ahead_s", "expected"), CLOCKS.values(), ids=CLOCKS.keys())
def test_clocks(ahead_s: list[float], expected: list[str]) -> None:
    others = [member(node, clock_ahead_s=by_s) for node, by_s in zip((BOB, CLEO), ahead_s, strict=False)]
    found = trouble(roster(*others))
    assert short(found) == [(WARNING, what) for what in expected]
    assert all("set-ntp" in one.remedy for one in found)


def test_of_two_clocks_nobody_knows_which_is_right() -> None:
    assert trouble(roster(member(BOB, clock_ahead_s=3.0)))[0].unknown == "which of the two is right"
    assert trouble(roster(member(BOB, clock_ahead_s=3.0), member(CLEO, clock_ahead_s=0.0)))[0].unknown == ""


def test_clocks_so_far_apart_that_certificates_fail_say_so() -> None:
    assert "certificates" in trouble(roster(member(BOB, clock_ahead_s=4000.0)))[0].why
    assert "certificates" not in trouble(roster(member(BOB, clock_ahead_s=30.0)))[0].why


VERSION, SETTING = discovery_pb2.DIFFERENCE_KIND_VERSION, discovery_pb2.DIFFERENCE_KIND_SETTING
DIFFERENCES = {
    "of the engine": (VERSION, "mlx", False, WARNING, "make install"),
    "of ours": (VERSION, "thunderline", False, WARNING, "make install"),
    "of the system": (VERSION, "system", False, NOTE, ""),
    "who schedules": (SETTING, "cluster.scheduler", False, WRONG, "`[cluster] scheduler` alike"),
    "a limit": (SETTING, "limits.dead_s", False, WARNING, "`[limits] dead_s` alike"),
    "a port, which the card tells": (SETTING, "topology.echo_port", False, NOTE, ""),
    "of each its own": (SETTING, "node.bind", True, NOTE, ""),
}


@pytest.mark.parametrize(("kind", "name", "expected", "severity", "remedy"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_differences(
    kind: "discovery_pb2.DifferenceKind.ValueType", name: str, expected: bool, severity: str, remedy: str
) -> None:
    sentence = f"{name} is 1 on me, 2 on bob"
    one = discovery_pb2.Difference(kind=kind, name=name, sentence=sentence, expected=expected)
    found = of_roster(roster(member(BOB), differences=[one]), FIRST, {})
    assert (severity, f"nodes differ in {name}") in short(found)
    told = next(each for each in found if name in each.what)
    assert told.why.startswith(sentence)
    assert remedy in told.remedy


def test_nodes_of_one_host_name_are_told_apart() -> None:
    twins = [member("11111111-1"), member("22222222-2")]
    for one in twins:
        one.card.hostname = "mini"
    assert peers(roster(*twins)) == {"11111111-1": "mini 11111111", "22222222-2": "mini 22222222"}


def test_for_how_long_a_member_is_alive() -> None:
    bob = member(BOB)
    bob.state_since.FromMilliseconds(int((NOW_S - 7) * 1000))
    assert alive_s(roster(bob, member(CLEO, DEAD)), NOW_S)[BOB] == pytest.approx(7)
    assert CLEO not in alive_s(roster(member(CLEO, DEAD)), NOW_S)


def test_what_is_read_from_the_cards() -> None:
    known = roster(member(BOB, SUSPECT), member(CLEO), member("node-dora", LEFT, "gone"))
    assert peers(known) == {CLEO: "cleo"}
    assert ports(known, "discovery")[BOB] == 7401
    assert ports(known, "echo") == {}
    assert addresses(known) == {"10.0.0.2:7401", "[fd00::2]:7401"}
    assert addresses_of_lost(known) == {BOB: ["10.0.0.2:7401", "[fd00::2]:7401"]}
