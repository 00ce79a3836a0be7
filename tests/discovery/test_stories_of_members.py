"""Discoveries on loopback that find each other, restart, leave, and meet those of another cluster."""

import asyncio
import re
import time

import pytest

from discovery.little_discovery import WAITS, LittleNode, discovering, free_port, little_card, new_id, until
from thunderline.cluster import NodeId
from thunderline.cluster.errors import Draining, InvalidRequest, NotFound
from thunderline.cluster.members import MemberState
from thunderline.discovery import exchanging, wire
from thunderline.discovery import roster as rosters
from thunderline.discovery.peers import Lead
from thunderline.v1 import discovery_pb2

S = MemberState


async def test_three_nodes_find_each_other_by_one_seed() -> None:
    async with (
        discovering(little_card(free_port(), hostname="ada")) as a,
        discovering(little_card(free_port(), hostname="bob"), [a]) as b,
        discovering(little_card(free_port(), hostname="cleo"), [a]) as c,
    ):
        nodes = (a, b, c)

        def everybody() -> bool:
            return all(one.sees(*(other for other in nodes if other is not one)) for one in nodes)

        await until("all see all", everybody)
        for one in nodes:
            roster = await one.client.roster()
            assert sorted(member.card.hostname for member in roster.members) == ["ada", "bob", "cleo"]
            assert roster.node_id == one.node_id
            heard = [member for member in roster.members if member.card.node_id != one.node_id]
            assert {member.address for member in heard} == {"127.0.0.1"}
            assert all(abs(member.clock_ahead_s) < 1 for member in heard)
            # Their clock is this machine's: what is shown was measured.
            assert all(member.HasField("clock_ahead_s") for member in heard)
            assert abs(time.time() - roster.members[0].state_since.ToSeconds()) < 60


async def test_what_they_say_of_themselves_and_where_they_differ() -> None:
    ada = little_card(free_port(), hostname="ada", versions={"mlx": "0.32.4", "python": "3.11.7"})
    bob = little_card(free_port(), hostname="bob", versions={"mlx": "0.32.2", "python": "3.11.7"})
    async with discovering(ada) as a, discovering(bob, [a]) as b:
        await until("they see each other", lambda: a.sees(b) and b.sees(a))
        for one in (a, b):
            roster = await one.client.roster()
            assert {member.card.hostname: member.card for member in roster.members} == {"ada": ada, "bob": bob}
            (difference,) = roster.differences
            assert (difference.name, difference.expected) == ("mlx", False)
            assert "0.32.4 on ada" in difference.sentence
            assert "0.32.2 on bob" in difference.sentence


async def test_a_changed_card_is_known_everywhere_within_two_heartbeats() -> None:
    card = little_card(free_port())
    async with discovering(little_card(free_port())) as a, discovering(card, [a]) as b:
        await until("they see each other", lambda: a.sees(b) and b.sees(a))
        card.revision, card.hostname = 1, "renamed"
        b.members.renew(wire.to_card(card))
        begun_s = time.monotonic()
        await until("the new name", lambda: a.members.roster.members[b.node_id].card.hostname == "renamed")
        assert time.monotonic() - begun_s < 4 * WAITS.heartbeat_s


async def test_a_restarted_node_replaces_its_former_self_at_once() -> None:
    port, node_id = free_port(), new_id()
    async with discovering(little_card(free_port())) as a:
        async with discovering(little_card(port, node_id), [a]) as b:
            await until("they see each other", lambda: a.sees(b) and b.sees(a))
        async with discovering(little_card(port, node_id, incarnation=2), [a]) as again:
            begun_s = time.monotonic()
            await until("the new life", lambda: a.members.roster.members[node_id].card.life.incarnation == 2)
            assert time.monotonic() - begun_s < WAITS.dead_s
            assert a.sees(again)
            await asyncio.sleep(WAITS.dead_s)
            assert a.sees(again)
            assert not (await a.client.roster()).twins


async def test_one_that_is_killed_is_suspect_then_dead_and_says_why_it_cannot_be_called() -> None:
    # The one with the smaller id begins: it has a problem to tell of.
    low, high = sorted((new_id(), new_id()))
    async with discovering(little_card(free_port(), low)) as a:
        seen: list[str] = []
        async with discovering(little_card(free_port(), high), [a]) as b:
            await until("they see each other", lambda: a.sees(b) and b.sees(a))
        async with asyncio.timeout(20):
            async for roster in a.client.watch_roster():
                member = next(one for one in roster.members if one.card.node_id == high)
                state = discovery_pb2.MemberState.Name(member.state).removeprefix("MEMBER_STATE_")
                if not seen or seen[-1] != state:
                    seen.append(state)
                if member.state == discovery_pb2.MEMBER_STATE_DEAD and member.problem:
                    break
        assert seen[-2:] == ["SUSPECT", "DEAD"]
        assert re.match(rf"127\.0\.0\.1:{b.target.rpartition(':')[2]}: .+", member.problem)


async def test_a_watch_starts_with_the_whole_incomplete_roster_and_tells_when_it_is_complete() -> None:
    nobody = f"127.0.0.1:{free_port()}"
    async with discovering(little_card(free_port()), [nobody]) as a:
        begun_s, versions = time.monotonic(), []
        async with asyncio.timeout(20):
            async for roster in a.client.watch_roster():
                versions.append(roster.version)
                assert len(roster.members) == 1
                if roster.complete:
                    break
        assert len(versions) >= 2
        assert versions == sorted(set(versions))
        assert time.monotonic() - begun_s > WAITS.dead_s / 2


async def test_those_who_were_known_are_found_again_without_a_seed() -> None:
    port, node_id = free_port(), new_id()
    async with discovering(little_card(free_port())) as a:
        async with discovering(little_card(port, node_id), [a]) as b:
            await until("they see each other", lambda: a.sees(b) and b.sees(a))
            card = a.members.own
        # Remembered by it alone: a calls it only later, as one that is DEAD.
        async with discovering(little_card(port, node_id, incarnation=2), remembered=[card]) as again:
            assert again.state(a) is S.SUSPECT
            await until("it is found", lambda: again.sees(a))


async def test_clusters_of_other_names_stay_apart_and_are_shown() -> None:
    async with (
        discovering(little_card(free_port(), cluster="theirs", hostname="eve")) as theirs,
        discovering(little_card(free_port(), hostname="ada"), [theirs]) as ours,
    ):
        await until("they are shown", lambda: bool(ours.members.roster.strangers))
        assert ours.sees()
        assert theirs.sees()
        for one, other, name in ((ours, theirs, "theirs"), (theirs, ours, "ours")):
            (stranger,) = (await one.client.roster()).strangers
            assert (stranger.node_id, stranger.cluster_name) == (other.node_id, name)
            assert list(stranger.addresses) == [other.target]


async def test_two_nodes_with_one_id_are_reported_and_not_merged() -> None:
    node_id = new_id()
    first = little_card(free_port(), node_id, hostname="disk")
    second = little_card(free_port(), node_id, hostname="copy")
    async with (
        discovering(first) as one,
        discovering(second) as two,
        discovering(little_card(free_port()), [one, two]) as watcher,
    ):
        await until("they are told", lambda: bool(rosters.twins(watcher.members.roster)))
        (twin,) = (await watcher.client.roster()).twins
        assert twin.node_id == node_id
        assert {twin.shown.hostname, twin.other.hostname} == {"disk", "copy"}
        assert {one.states[node_id], two.states[node_id]} == {"ALIVE"}
        assert watcher.state(node_id) is S.ALIVE


async def three(a: LittleNode, b: LittleNode, c: LittleNode) -> None:
    await until("all see all", lambda: a.sees(b, c) and b.sees(a, c) and c.sees(a, b))


async def test_who_leaves_is_forgotten_by_all_until_it_is_started_again() -> None:
    port, node_id = free_port(), new_id()
    async with discovering(little_card(free_port())) as a, discovering(little_card(free_port()), [a]) as b:
        async with discovering(little_card(port, node_id), [a]) as c:
            await three(a, b, c)
            await c.client.leave(node_id)
            # Idempotent.
            await c.client.leave(node_id)
            await until("all know", lambda: a.state(node_id) is S.LEFT and b.state(node_id) is S.LEFT)
            await until("it stops", lambda: c.members.has_gone and not c.exchanging.channels.targets)
            assert (await c.client.roster()).node_id == node_id
            await asyncio.sleep(WAITS.dead_s)
            assert {a.state(node_id), b.state(node_id)} == {S.LEFT}
            assert c.state(c) is S.LEFT
        async with discovering(little_card(port, node_id, incarnation=2), [a]) as c:
            await three(a, b, c)


async def test_one_that_never_comes_back_is_taken_out_by_the_scheduler_node() -> None:
    first = new_id()
    async with (
        discovering(little_card(free_port(), first), scheduler=first) as a,
        discovering(little_card(free_port()), [a], scheduler=first) as b,
    ):
        async with discovering(little_card(free_port()), [a], scheduler=first) as c:
            await three(a, b, c)
            gone = c.node_id
        await until("it is dead", lambda: a.state(gone) is S.DEAD and b.state(gone) is S.DEAD)
        await a.client.leave(gone)
        await until("both know", lambda: a.state(gone) is S.LEFT and b.state(gone) is S.LEFT)


async def test_only_members_can_leave() -> None:
    async with discovering(little_card(free_port())) as a:
        with pytest.raises(NotFound) as unknown:
            await a.client.leave(new_id())
        assert unknown.value.param == "node_id"
        with pytest.raises(InvalidRequest) as wrong:
            await a.client.leave("ada")  # type: ignore[arg-type]
        assert wrong.value.param == "node_id"


async def test_calls_move_to_the_best_link_and_nothing_is_left_on_the_other() -> None:
    low, high = sorted((new_id(), new_id()))
    best: dict[NodeId, str] = {}
    card = little_card(free_port(), high, addresses=("127.0.0.1", "127.0.0.2"))
    async with discovering(card) as b, discovering(little_card(free_port(), low), [b], best=lambda: best) as a:
        await until("they see each other", lambda: a.sees(b) and b.sees(a))
        first = a.members.peers.answers_at[high]
        other = next(one for one in b.members.own.addresses if one != first)
        best[high] = other.rpartition(":")[0]
        begun_s = time.monotonic()
        await until("it answers there", lambda: a.members.peers.answers_at[high] == other)
        await until("the old one is closed", lambda: a.exchanging.channels.targets == {other})
        assert time.monotonic() - begun_s < 8 * WAITS.heartbeat_s
        # The better link breaks without a word of topology: within a heartbeat all are tried.
        best[high] = "127.0.0.9"
        await until("it answers where it did", lambda: a.members.peers.answers_at.get(high) in (first, other))
        await asyncio.sleep(WAITS.dead_s)
        assert a.state(b) is S.ALIVE


async def test_members_are_called_when_those_who_are_only_announced_have_taken_every_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchanging, "DIAL_COUNT_MAX", 0)
    async with (
        discovering(little_card(free_port())) as announced,
        discovering(little_card(free_port())) as known,
        discovering(little_card(free_port()), remembered=[known.members.own]) as a,
    ):
        a.members.sighted([Lead(announced.node_id, announced.members.own.addresses)])
        await until("they see each other", lambda: a.sees(known) and known.sees(a))
        assert announced.sees()


async def test_a_node_that_is_stopping_says_so_to_who_watches() -> None:
    async with discovering(little_card(free_port())) as a:
        watching = a.client.watch_roster()
        assert (await anext(watching)).node_id == a.node_id
        a.members.changes.stop()
        with pytest.raises(Draining):
            await anext(watching)
