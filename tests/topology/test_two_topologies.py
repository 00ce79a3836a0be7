"""Real topologies on loopback: both directions are found, told to everybody, chosen; also when one cannot dial."""

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

import grpc
import pytest

from thunderline.cluster.errors import Draining, NotFound
from thunderline.rpc.channel import dial
from thunderline.rpc.errors import from_call
from thunderline.v1 import cluster_pb2, topology_pb2, topology_pb2_grpc
from topology.little_network import HERE, Node, free_ports, living, nodes, pairs, roster, together, until

UP, DOWN = topology_pb2.LINK_STATE_UP, topology_pb2.LINK_STATE_DOWN


def both(one: Node, other: Node) -> set[tuple[str, str]]:
    return {(one.node, other.node), (other.node, one.node)}


async def test_both_directions_are_in_both_graphs(tmp_path: Path) -> None:
    one, other = nodes(tmp_path, 2)
    async with together(one, other) as lives:
        for life in lives:

            def whole(told: topology_pb2.Topology) -> bool:
                """Before the dialling node has told of it, a link has one interface."""
                is_known = told.complete and pairs(told) == both(one, other)
                is_told = all(attempt.chosen for attempt in told.attempts)
                return is_known and is_told and all(link.local_interface and link.peer_interface for link in told.links)

            told = await life.until("both directions, and what both have chosen", whole)
            for link in told.links:
                assert (link.state, link.chosen, link.peer_address) == (UP, True, HERE)
                assert (link.local_interface, link.peer_interface) == ("lo", "lo")
                assert 0 < link.rtt_us < 50_000
                assert link.why.startswith("chosen: nothing else answers")
            assert list(told.incomplete_node_ids) == []
            mine = [attempt for attempt in told.attempts if attempt.from_node_id == told.node_id]
            assert [attempt.sentence for attempt in mine] == ["answered"]


async def test_the_way_back_is_seen_too_and_so_nothing_is_one_sided(tmp_path: Path) -> None:
    one, other = nodes(tmp_path, 2)
    async with together(one, other) as lives:

        def whole(told: topology_pb2.Topology) -> bool:
            paths = [link.path for link in told.links]
            ends = [(path.leaves, path.arrives, path.returns, path.comes_back) for path in paths]
            return len(paths) == 2 and all(end.interface == "lo" for row in ends for end in row)

        told = await lives[0].until("all ends of both paths", whole)
        assert all(not link.marks for link in told.links)


async def test_ports_on_the_cards_of_two_macs_are_one_rail_for_both(tmp_path: Path) -> None:
    one, other = nodes(tmp_path, 2)
    cards = [node.card() for node in (one, other)]
    for card, uuid, receptacle in zip(cards, ("uuid-a", "uuid-b"), ("4", "2"), strict=True):
        card.operating_system = "darwin 25.2.0"
        port = card.machine.ports.add(uuid=uuid, receptacle=receptacle, interface="en5", rdma_device="rdma_en5")
        port.rdma_port, port.speed_gbps = cluster_pb2.RDMA_PORT_STATE_ACTIVE, 80
    # The second does not see the first.
    cards[0].machine.ports[0].macs.add(port_uuid="uuid-b", behind=["Hub"])
    unlooked = cluster_pb2.NodeCard()
    unlooked.CopyFrom(cards[1])
    unlooked.ClearField("machine")
    async with living(one, roster(*cards)) as first, living(other, roster(cards[0], unlooked)) as second:
        # Its own discovery has not looked at its ports yet.
        told = await first.until("both directions", lambda told: pairs(told) == both(one, other))
        assert list(told.incomplete_node_ids) == [other.node] and not told.rails
        second.discovery.tell(roster(*cards))
        for life in (first, second):
            told = await life.until("a rail", lambda told: told.rails and not told.incomplete_node_ids)
            (rail,) = told.rails
            assert [(end.node_id, end.port_uuid, end.receptacle) for end in (rail.one, rail.other)] == [
                (one.node, "uuid-a", "4"),
                (other.node, "uuid-b", "2"),
            ]
            assert (rail.speed_gbps, list(rail.behind), rail.one_sided) == (80, ["Hub"], True)


async def test_one_stream_joins_two_nodes_that_can_both_dial(tmp_path: Path) -> None:
    one, other = nodes(tmp_path, 2)
    async with together(one, other) as lives:
        roles = [life.role for life in lives]
        await until("a stream stands", lambda: all(role.exchange.joined for role in roles))
        await until("the second lets go", lambda: not roles[1].exchange.address(one.node))
        assert roles[0].exchange.address(other.node) == HERE


@pytest.mark.parametrize("deaf", [0, 1], ids=["the one with the smaller id", "the one with the larger id"])
async def test_a_host_that_can_be_dialled_but_cannot_dial_is_in_every_graph(tmp_path: Path, deaf: int) -> None:
    """It knows its peer under ports where nobody listens: what it dials is refused."""
    made = nodes(tmp_path, 2)
    cannot, can = made[deaf], made[1 - deaf]
    closed = free_ports(2)
    told = {
        cannot.node: roster(cannot.card(), can.card(echo=closed[0], topology=closed[1])),
        can.node: roster(cannot.card(), can.card()),
    }
    async with living(cannot, told[cannot.node]) as lame, living(can, told[can.node]) as hale:
        for life in (lame, hale):
            found = await life.until(
                "the direction that works, and why the other does not",
                lambda told: (
                    pairs(told) == {(can.node, cannot.node)}
                    and len(told.attempts) == 2
                    and "REFUSED" in {outcome(one) for one in told.attempts}
                ),
            )
            assert ["ECONNREFUSED" in one.sentence for one in found.attempts if one.to_node_id == can.node] == [True]
            assert "one direction only" in found.links[0].why
        assert not lame.role.exchange.address(can.node)


def outcome(one: topology_pb2.AddressAttempt) -> str:
    return topology_pb2.ProbeOutcome.Name(one.outcome).removeprefix("PROBE_OUTCOME_")


async def test_who_does_not_reach_each_other_hears_of_it_through_the_one_between(tmp_path: Path) -> None:
    left, middle, right = nodes(tmp_path, 3)
    closed = free_ports(2)

    def seen_by(blind: Node | None) -> Iterable[object]:
        return [one.card(echo=closed[0], topology=closed[1]) if one is blind else one.card() for one in all_]

    all_ = (left, middle, right)
    async with contextlib.AsyncExitStack() as stack:
        lives = [
            await stack.enter_async_context(living(one, roster(*seen_by(blind))))  # type: ignore[arg-type]
            for one, blind in ((left, right), (middle, None), (right, left))
        ]
        wanted = both(left, middle) | both(middle, right)
        for life in lives:
            await life.until("all four directions", lambda told: pairs(told) == wanted and len(told.attempts) == 6)


async def test_a_peer_that_is_gone_is_down_and_comes_back_by_itself(tmp_path: Path) -> None:
    one, other = nodes(tmp_path, 2)
    told = roster(one.card(), other.card())
    async with living(one, told) as life:
        async with living(other, told):
            await life.until("both directions", lambda told: pairs(told) == both(one, other))
        # Its discovery says that it is still there: only its topology is away.
        await until("its stream is gone", lambda: not life.role.exchange.joined)
        async with living(other, told) as again:
            await again.until("both directions", lambda told: pairs(told) == both(one, other))
            await until("a stream stands again", lambda: life.role.exchange.joined)


async def test_it_goes_on_without_its_discovery(tmp_path: Path) -> None:
    one, other = nodes(tmp_path, 2)
    told = roster(one.card(), other.card())
    async with living(one, told) as life:
        await until("it knows the roster", lambda: life.role.knowledge.members.peers)
        life.discovery.changes.stop()
        async with living(other, told) as late:
            await late.until("both directions", lambda told: pairs(told) == both(one, other))
            await life.until("both directions", lambda told: pairs(told) == both(one, other))


async def test_versions_grow_over_restarts(tmp_path: Path) -> None:
    one, other = nodes(tmp_path, 2)
    told = roster(one.card(), other.card())
    seen: list[tuple[int, int]] = []
    async with living(other, told):
        for _ in range(3):
            async with living(one, told) as life:
                await life.until("both directions", lambda told: pairs(told) == both(one, other))
                seen += [(told.version.start, told.version.number) for told in life.seen]
    assert seen == sorted(set(seen))
    first = seen[0][0]
    assert {start for start, _ in seen} == {first, first + 1, first + 2}


async def test_a_node_that_lost_its_count_is_believed_again(tmp_path: Path) -> None:
    one, other = nodes(tmp_path, 2)
    told = roster(one.card(), other.card())
    # Ahead of the time, from which it would count anew.
    ahead = 2**40
    async with living(other, told) as stays:
        (one.home / "topology.json").write_text(json.dumps({"start": ahead}))
        known = stays.role.knowledge
        async with living(one, told):
            await until("its report is there", lambda: one.node in known.reports)
            assert known.reports[one.node].version.start == ahead + 1
        (one.home / "topology.json").unlink()
        async with living(one, told) as life:
            await until("its count is above the old one", lambda: life.role.knowledge.start == ahead + 2)
            kept = one.home / "topology.json"
            await until("and on disk", lambda: json.loads(kept.read_text()) == {"start": ahead + 2})
            await until("its peer has its new report", lambda: known.reports[one.node].version.start == ahead + 2)


async def test_who_has_left_is_forgotten(tmp_path: Path) -> None:
    one, other = nodes(tmp_path, 2)
    async with together(one, other) as lives:
        await lives[0].until("both directions", lambda told: pairs(told) == both(one, other))
        lives[0].discovery.tell(roster(one.card()))
        told = await lives[0].until("nobody else", lambda told: not told.links and not told.attempts)
        assert list(told.incomplete_node_ids) == []


async def test_one_node_alone_is_complete_at_once(tmp_path: Path) -> None:
    (one,) = nodes(tmp_path, 1)
    async with living(one, roster(one.card())) as life:
        told = await life.until("complete", lambda told: told.complete)
        assert (list(told.links), list(told.attempts)) == ([], [])
        assert "lo" in {interface.name for interface in told.interfaces}


async def test_a_watch_ends_with_the_role(tmp_path: Path) -> None:
    (one,) = nodes(tmp_path, 1)
    async with dial(f"{HERE}:{one.topology}") as channel:
        async with living(one, roster(one.card())):
            call = topology_pb2_grpc.TopologyServiceStub(channel).WatchTopology(topology_pb2.WatchTopologyRequest())
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await call.read() is not grpc.aio.EOF:
                pass
        assert isinstance(from_call(caught.value), Draining)


async def test_a_measurement_of_a_link_that_is_not_there_is_refused(tmp_path: Path) -> None:
    one, other = nodes(tmp_path, 2)
    async with together(one, other) as lives:
        await lives[0].until("both directions", lambda told: pairs(told) == both(one, other))
        nowhere = topology_pb2.Link(from_node_id=one.node, to_node_id=other.node, peer_address="10.9.9.9")
        with pytest.raises(NotFound, match=r"no link to '10\.9\.9\.9'"):
            await lives[0].client.measure_link(nowhere, bandwidth=False)
