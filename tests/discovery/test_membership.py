"""What one node knows now, and what is told of it, on a clock of the test."""

from collections.abc import Callable

import pytest

from discovery.little_discovery import little_card, new_id
from thunderline.cluster.errors import Draining, Full, Unauthenticated
from thunderline.cluster.members import HAS_LEFT, MemberState
from thunderline.discovery import membership, wire
from thunderline.discovery.membership import FAREWELL, PROBLEM_KEPT, Membership
from thunderline.discovery.peers import Call, Greeting
from thunderline.discovery.values import Card
from thunderline.v1 import discovery_pb2


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def of(name: str, node_id: str = "") -> Card:
    return wire.to_card(little_card(7401, node_id, hostname=name))


def ticked(members: Membership, clock: Clock, seconds: float, heard: Card | None = None) -> None:
    until_s = clock.now_s + seconds
    while clock.now_s < until_s:
        clock.now_s += 0.25
        if heard is not None:
            members.greeted(Greeting(heard), 0.0, "10.0.0.2")
        members.tick()


def told(members: Membership, card: Card) -> discovery_pb2.Member:
    return next(one for one in members.proto().members if one.card.node_id == card.node_id)


BOB = of("bob")
CALL = Call(BOB.node_id, BOB.addresses)


def test_every_change_is_told_to_who_waits_with_a_greater_version() -> None:
    members, seen = Membership(of("ada"), clock=Clock()), []
    changes: list[Callable[[], None]] = [
        lambda: members.greeted(Greeting(BOB), 0.0, "10.0.0.2"),
        lambda: members.failed(CALL, "refused"),
        lambda: members.answered(CALL, "10.0.0.2:7401", Greeting(BOB), 0.0),
        lambda: members.leave(BOB.node_id),
    ]
    for change in changes:
        change()
        seen.append((members.changes.version, members.proto().version))
    assert seen == sorted(set(seen))
    assert [version for version, _ in seen] == [1, 2, 3, 4]


def test_nothing_is_told_when_a_card_comes_once_more() -> None:
    members = Membership(of("ada"), clock=Clock())
    members.greeted(Greeting(BOB), 0.0, "10.0.0.2")
    before = members.changes.version
    members.greeted(Greeting(BOB), 0.5, "10.0.0.3")
    members.tick()
    assert members.changes.version == before


def test_one_late_answer_does_not_make_a_clock_wrong() -> None:
    members = Membership(of("ada"), clock=Clock())
    for ahead_s in (0.01, 0.02, -7.0, 0.02, 0.01):
        members.greeted(Greeting(BOB), ahead_s, "10.0.0.2")
    assert told(members, BOB).clock_ahead_s == 0.01
    for _ in range(3):
        members.greeted(Greeting(BOB), 30.0, "10.0.0.2")
    assert told(members, BOB).clock_ahead_s == 30.0


def test_a_problem_goes_with_an_answer() -> None:
    members = Membership(of("ada"), clock=Clock())
    members.greeted(Greeting(BOB), 0.0, "10.0.0.2")
    members.failed(CALL, "refused")
    members.explained(CALL, "its certificate has expired")
    assert told(members, BOB).problem == "its certificate has expired"
    members.answered(CALL, "10.0.0.2:7401", Greeting(BOB), 0.0)
    assert told(members, BOB).problem == ""
    # What was found out too late is nothing.
    members.explained(CALL, "its certificate has expired")
    assert told(members, BOB).problem == ""


def test_a_problem_of_one_who_calls_us_instead_is_forgotten_and_of_one_who_is_dead_is_kept() -> None:
    clock = Clock()
    members = Membership(of("ada"), clock=clock)
    members.greeted(Greeting(BOB), 0.0, "10.0.0.2")
    members.failed(CALL, "refused")
    ticked(members, clock, PROBLEM_KEPT - 1, heard=BOB)
    assert told(members, BOB).problem == "refused"
    ticked(members, clock, 2.0, heard=BOB)
    assert told(members, BOB).problem == ""
    members.failed(CALL, "refused")
    ticked(members, clock, 60.0)
    assert told(members, BOB).problem == "refused"


def test_who_has_left_says_so_for_a_while_and_then_nothing() -> None:
    clock = Clock()
    members = Membership(of("ada"), clock=clock)
    members.greeted(Greeting(BOB), 0.0, "10.0.0.2")
    members.leave(members.own.node_id)
    assert members.has_left
    assert (members.own.node_id, members.own.life) in members.greet(BOB).left
    ticked(members, clock, FAREWELL + 0.25)
    assert members.has_gone
    assert members.tick() == ()
    with pytest.raises(Draining):
        members.greeted(Greeting(BOB), 0.0, "10.0.0.2")
    assert told(members, members.own).state == discovery_pb2.MEMBER_STATE_LEFT


def test_who_is_told_by_the_scheduler_node_that_it_left_stops_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    clock, eve = Clock(), of("eve")
    members = Membership(of("ada"), scheduler=BOB.node_id, clock=clock)
    left = ((members.own.node_id, members.own.life),)
    members.greeted(Greeting(eve, left=left), 0.0, "10.0.0.3")
    assert not members.has_left
    members.greeted(Greeting(BOB, left=left), 0.0, "10.0.0.2")
    ticked(members, clock, FAREWELL + 0.25, heard=None)
    assert members.has_gone
    assert [record.getMessage() for record in caplog.records] == [f"this node {HAS_LEFT}"]


def test_who_was_taken_out_is_told_so_and_is_no_member_until_it_was_let_in_again() -> None:
    out = new_id()
    members = Membership(of("ada"), scheduler=BOB.node_id, clock=Clock())
    for revision, departed in ((1, [out]), (2, [])):
        told = little_card(7401, BOB.node_id)
        told.start_id, told.revision = BOB.life.start_id, revision
        told.departed_node_ids.extend(departed)
        members.greeted(Greeting(wire.to_card(told)), 0.0, "10.0.0.2")
        again = Greeting(of("eve", out))
        if departed:
            with pytest.raises(Unauthenticated, match=f"node {out} has left this cluster: join again with a token"):
                members.greeted(again, 0.0, "10.0.0.3")
            # Nor is it one that answers us.
            members.answered(Call(out, ("10.0.0.3:7401",)), "10.0.0.3:7401", again, 0.0)
            assert out not in members.roster.members
    members.greeted(again, 0.0, "10.0.0.3")
    assert members.roster.members[out].state is MemberState.ALIVE


def test_members_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "MEMBER_COUNT_MAX", 3)
    members = Membership(of("ada"), clock=Clock())
    for name in ("bob", "cleo"):
        members.greeted(Greeting(of(name)), 0.0, "10.0.0.2")
    with pytest.raises(Full):
        members.greeted(Greeting(of("eve")), 0.0, "10.0.0.2")
    assert len(members.roster.members) == 3


def test_one_node_alone_is_complete_at_once_and_no_more_so_after_a_sleep_with_others() -> None:
    clock = Clock()
    members = Membership(of("ada"), alone=True, clock=clock)
    assert members.proto().complete
    members.greeted(Greeting(BOB), 0.0, "10.0.0.2")
    clock.now_s += 3600.0
    members.tick()
    assert not members.proto().complete
    assert members.roster.members[BOB.node_id].state is MemberState.ALIVE
    ticked(members, clock, 5.0, heard=BOB)
    assert members.proto().complete


def test_a_new_life_is_measured_anew() -> None:
    clock, node = Clock(), new_id()
    members = Membership(of("ada"), clock=clock)
    members.greeted(Greeting(of("bob", node)), 0.5, "10.0.0.2")
    again = wire.to_card(little_card(7401, node, incarnation=2))
    members.greeted(Greeting(again), 0.25, "10.0.0.3")
    assert told(members, again).address == "10.0.0.3"
