"""Measurements on request: what 20 probes come to, what a bandwidth is, who is asked and who refuses."""

import asyncio
from pathlib import Path

import pytest

from thunderline.client import TopologyClient
from thunderline.cluster.errors import Full, LinkInUse, NotFound
from thunderline.topology.echo_messages import Tally
from thunderline.topology.measuring import summary, tallied
from thunderline.topology.permits import STREAM_COUNT
from thunderline.v1 import topology_pb2
from topology.little_network import HERE, WAIT_S, Living, nodes, pairs, together, until


def times(rtt_us: int, count: int) -> list[int | None]:
    return [rtt_us] * count


# RTTs, None for a lost one -> median, min, max, average, deviation, lost.
SUMMARIES: dict[str, tuple[list[int | None], tuple[int, int, int, int, int, int]]] = {
    "all alike": (times(50, 20), (50, 50, 50, 50, 0, 0)),
    "two kinds": (times(40, 10) + times(60, 10), (50, 40, 60, 50, 10, 0)),
    "one late": (times(50, 19) + times(1050, 1), (50, 50, 1050, 100, 218, 0)),
    "a few lost": ([50, None, 70, None], (60, 50, 70, 60, 10, 2)),
    "all lost": ([None] * 20, (0, 0, 0, 0, 0, 20)),
}


@pytest.mark.parametrize(("rtts", "expected"), SUMMARIES.values(), ids=SUMMARIES.keys())
def test_a_summary(rtts: list[int | None], expected: tuple[int, ...]) -> None:
    found = summary(rtts)
    times = (found.rtt_us, found.rtt_min_us, found.rtt_max_us, found.rtt_avg_us, found.rtt_stddev_us)
    assert (*times, found.lost_count) == expected


def test_streams_side_by_side_are_as_fast_as_all_their_bytes_in_the_longest_of_their_times() -> None:
    assert tallied([Tally(1_000_000, 1_000_000)] * 4) == 32_000_000
    assert tallied([Tally(1_000_000, 1_000_000), Tally(1_000_000, 2_000_000)]) == 8_000_000


async def joined(lives: list[Living]) -> list[topology_pb2.Link]:
    """The links between two, as the first tells them: its own first."""
    told = await lives[0].until("both directions", lambda told: len(pairs(told)) == 2)
    return sorted(told.links, key=lambda link: link.from_node_id != told.node_id)


async def test_a_link_is_measured_from_either_end_by_asking_one_of_them(tmp_path: Path) -> None:
    async with together(*nodes(tmp_path, 2)) as lives:
        for life in lives:
            life.role.measuring.send_s = 0.3
        for link in await joined(lives):
            found = await lives[0].client.measure_link(link, bandwidth=True)
            assert 0 < found.rtt_min_us <= found.rtt_us <= found.rtt_max_us < 50_000
            assert found.lost_count == 0
            assert found.bandwidth_bits_per_s > 10**8
            only = await lives[0].client.measure_link(link, bandwidth=False)
            assert (only.bandwidth_bits_per_s, only.rtt_us > 0) == (0, True)


async def test_one_measurement_at_a_time(tmp_path: Path) -> None:
    async with together(*nodes(tmp_path, 2)) as lives:
        link = (await joined(lives))[0]
        asked = [asyncio.create_task(lives[0].client.measure_link(link, bandwidth=False)) for _ in range(2)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert sorted(type(one).__name__ for one in found) == ["Full", "MeasureLinkResponse"]
        (full,) = (one for one in found if isinstance(one, Full))
        assert full.retry_after_s is not None


async def test_a_measurement_that_its_caller_gives_up_ends(tmp_path: Path) -> None:
    async with together(*nodes(tmp_path, 2)) as lives:
        link = (await joined(lives))[0]
        # Longer than anybody waits here.
        lives[0].role.measuring.send_s = 10 * WAIT_S
        asked = asyncio.create_task(lives[0].client.measure_link(link, bandwidth=True))
        echo = lives[1].role.echo
        await until("its streams send", lambda: echo.open_count >= STREAM_COUNT)
        asked.cancel()
        await until("they have ended", lambda: echo.open_count == 0)
        assert (await lives[0].client.measure_link(link, bandwidth=False)).rtt_us > 0


async def test_the_bandwidth_of_a_link_over_which_an_instance_serves_is_not_measured(tmp_path: Path) -> None:
    async with together(*nodes(tmp_path, 2)) as lives:
        link = (await joined(lives))[0]
        request = topology_pb2.MeasureLinkRequest(
            peer_node_id=link.to_node_id, peer_address=HERE, bandwidth=True, in_use=True
        )
        measure = lives[0].role.service.MeasureLink
        with pytest.raises(LinkInUse):
            await measure(request, None)
        request.bandwidth = False
        assert (await measure(request, None)).rtt_us > 0


UNKNOWN = [
    topology_pb2.Link(to_node_id="nobody", peer_address=HERE),
    topology_pb2.Link(from_node_id="nobody", to_node_id="nobody", peer_address=HERE),
]


@pytest.mark.parametrize("link", UNKNOWN, ids=["the peer", "the one who shall measure"])
async def test_a_node_that_nobody_knows_is_not_found(tmp_path: Path, link: topology_pb2.Link) -> None:
    async with together(*nodes(tmp_path, 1)) as lives:
        client: TopologyClient = lives[0].client
        with pytest.raises(NotFound, match="nobody"):
            await client.measure_link(link, bandwidth=True)
