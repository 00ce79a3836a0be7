"""Interfaces that are looked at again and again: a look that fails ends nothing."""

import asyncio
import contextlib
import errno
from pathlib import Path

from thunderline.cluster.limits import DEFAULTS
from thunderline.cluster.media import Medium
from thunderline.cluster.members import MemberState
from thunderline.cluster.paths import End
from thunderline.process.changes import Changes
from thunderline.process.interfaces import Interface
from thunderline.topology import probes
from thunderline.topology.echo_messages import speaker
from thunderline.topology.ends import LOOK_GAP_S, Ends
from thunderline.topology.exchange import Exchange
from thunderline.topology.keeping import Keeper
from thunderline.topology.knowledge import Knowledge
from thunderline.topology.members import Members, Peer
from thunderline.topology.prober import Prober
from thunderline.topology.probes import Row
from topology.little_echo import OURS, A, B
from topology.scenes import straight

DEADLINE_S = 20.0
ADDRESS = "192.168.4.2"


class Reads:
    """The second fails; each other one finds a new MTU."""

    count = 0

    def __call__(self) -> tuple[Interface, ...]:
        self.count += 1
        if self.count == 2:
            raise OSError(errno.ENXIO, "Device not configured")
        return (Interface("en0", Medium.ETHERNET, ("127.0.0.1",), True, 1500 + self.count),)


def keeping_for(knowledge: Knowledge, ends: Ends, changes: Changes, home: Path) -> tuple[Keeper, Prober, Exchange]:
    prober = Prober(speaker(A, OURS), ends, DEFAULTS, lambda: None)
    exchange = Exchange(knowledge, DEFAULTS, None, lambda: None)
    return Keeper(knowledge, prober, exchange, changes, home, DEFAULTS), prober, exchange


async def test_a_choice_is_told_together_with_what_it_follows_from(tmp_path: Path) -> None:
    ends, knowledge = Ends({}, Reads()), Knowledge(A, 1, {}, DEFAULTS.probe_period_s)
    keeper, prober, exchange = keeping_for(knowledge, ends, Changes(), tmp_path)
    peer = Peer(B, MemberState.ALIVE, (1, ""), (ADDRESS,), 7412, 7402)
    knowledge.follow(Members({B: peer}, is_complete=True))
    row = probes.answered(Row(B, ADDRESS), 50, "192.168.4.1", straight(Medium.THUNDERBOLT))
    for rows in ({row.key: row}, {}):
        prober.rows = rows
        keeper.renew(is_urgent=True)
        told, seen = knowledge.report, exchange.changes.version
        assert [one.is_chosen for one in told.tried] == [True] * len(rows)
        assert knowledge.graph.tried == told.tried
        keeper.renew(is_urgent=True)
        assert (knowledge.report, exchange.changes.version) == (told, seen)
    ends.close()


async def test_interfaces_that_cannot_be_read_once_are_read_again(tmp_path: Path) -> None:
    reads, changes = Reads(), Changes()
    ends = Ends({}, reads)
    knowledge = Knowledge(A, 1, {}, DEFAULTS.probe_period_s)
    keeper, _, _ = keeping_for(knowledge, ends, changes, tmp_path)
    seen = changes.version
    keeping = asyncio.create_task(keeper.keep_interfaces(ends, every_s=0.01))
    news = asyncio.create_task(changes.after(seen))
    await asyncio.wait({keeping, news}, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
    assert not keeping.done(), keeping
    assert ends.interfaces[0].mtu_bytes > 1501
    for task in (keeping, news):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    ends.close()


async def test_a_connection_by_an_unknown_interface_is_known_though_none_can_be_read() -> None:
    reads = Reads()
    ends = Ends({}, reads)
    async with asyncio.timeout(DEADLINE_S):
        while reads.count < 2:
            found = ends.leaves("127.0.0.1", "127.0.0.1")
            await asyncio.sleep(LOOK_GAP_S / 5)
    assert found in (End("lo", Medium.OTHER), End("lo0", Medium.OTHER))
    ends.close()
