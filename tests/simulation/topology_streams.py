"""Streams of reports between simulated hosts: who dials, where they move, when they end, and what they carry."""

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from simulation.topology_host import PERIOD_S, Host
from thunderline.cluster import NodeId
from thunderline.cluster.graph import Version
from thunderline.topology.reports import Report

if TYPE_CHECKING:
    from simulation.topology_world import World

# A stream whose way is gone ends after so long (rpc/channel.py).
KEEP_ALIVE_S = 15.0
# A message carries at most so many reports.
REPORTS_PER_MESSAGE = 64


@dataclass
class Stream:
    """Reports go both ways over it; `held` is what each end has sent or was sent."""

    address: str
    # Host and life of its topology: the one that dialled, the other.
    ends: tuple[tuple[int, int], tuple[int, int]]
    held: dict[int, dict[NodeId, Version]]
    # Who has said all that it knows.
    begun: set[int] = field(default_factory=set)
    # Since when its way does not carry anything.
    silent_s: float | None = None
    # A message was lost: it ends when that is noticed.
    is_broken: bool = False


class Streams:
    """`message_count`, `report_count`: what was sent so far."""

    def __init__(self, world: "World") -> None:
        self.world, self.hosts = world, world.hosts
        self.message_count = self.report_count = 0

    def keep(self) -> None:
        """Each tick: those that end, move, or come about."""
        for one, other in itertools.combinations(self.hosts, 2):
            stream = one.streams.get(other.index) or other.streams.get(one.index)
            if stream is not None and self._ends(stream):
                self._drop(stream)
            elif stream is not None:
                self._change_over(stream)
            elif one.serves_reports(self.world.now_s) and other.serves_reports(self.world.now_s):
                self._dial(*sorted((one, other), key=lambda host: host.node))

    def _dial(self, first: Host, second: Host) -> None:
        """The one with the smaller id at once, the other after a period without a stream."""
        if frozenset((first.index, second.index)) in self.world.deaf:
            return
        since_s = second.lonely_s.setdefault(first.index, self.world.now_s)
        for host, peer in ((first, second), (second, first)):
            known = host.members.peers.get(peer.node)
            if known is None or not known.is_present or (host is second and self.world.now_s - since_s < PERIOD_S):
                continue
            addresses = [host.known.best(peer.node), *known.addresses]
            works = [address for address in addresses if self.world.leads(host.index, address, peer.index)]
            if works:
                self._join(host, peer, works[0])
                return

    def _join(self, host: Host, peer: Host, address: str) -> None:
        ends = ((host.index, host.run), (peer.index, peer.run))
        stream = Stream(address, ends, {host.index: {}, peer.index: {}})
        for one, other in ((host, peer), (peer, host)):
            one.streams[other.index] = stream
            one.lonely_s.pop(other.index, None)
            one.is_dirty = True

    def _change_over(self, stream: Stream) -> None:
        """To the better link; everything is told again over the new one."""
        host, peer = (self.hosts[index] for index, _ in stream.ends)
        best = host.known.best(peer.node)
        if best not in ("", stream.address) and self.world.leads(host.index, best, peer.index):
            self._join(host, peer, best)

    def _ends(self, stream: Stream) -> bool:
        """A role that dies is noticed at once; who is DEAD is let go; a way that is gone ends after the keep-alive."""
        (dialler, run), (dialled, dialled_run) = stream.ends
        host, peer = self.hosts[dialler], self.hosts[dialled]
        known = host.members.peers.get(peer.node)
        is_over = (host.run, peer.run) != (run, dialled_run) or known is None or not known.is_present
        if is_over or stream.is_broken:
            return True
        if self._carries(stream):
            stream.silent_s = None
            return False
        self.world.disturb(dialler, dialled)
        stream.silent_s = self.world.now_s if stream.silent_s is None else stream.silent_s
        return self.world.now_s - stream.silent_s >= KEEP_ALIVE_S

    def _carries(self, stream: Stream) -> bool:
        (dialler, _), (dialled, _) = stream.ends
        now_s = self.world.now_s
        are_awake = self.hosts[dialler].is_awake(now_s) and self.hosts[dialled].is_awake(now_s)
        return are_awake and self.world.leads(dialler, stream.address, dialled)

    def _drop(self, stream: Stream) -> None:
        for (index, _), (peer, _) in (stream.ends, stream.ends[::-1]):
            if self.hosts[index].streams.get(peer) is stream:
                del self.hosts[index].streams[peer]
                self.hosts[index].is_dirty = True
        self.world.disturb(stream.ends[0][0], stream.ends[1][0])

    def flush(self, host: Host) -> None:
        """To each stream what its other end lacks; over a new one everything."""
        news, reports = host.news(), host.known.reports
        for peer, stream in host.streams.items():
            is_new, held = host.index not in stream.begun, stream.held[host.index]
            if not is_new and not news:
                continue
            stream.begun.add(host.index)
            told = self.world.core.to_send(reports if is_new else news, held, host.node, self.world.names[peer])
            if told:
                held.update((one.node, one.version) for one in told)
                self._send(host, self.hosts[peer], stream, told)

    def _send(self, host: Host, other: Host, stream: Stream, told: tuple[Report, ...]) -> None:
        """TCP: while the way carries nothing the message waits, and is lost only with its stream."""
        self.message_count += -(-len(told) // REPORTS_PER_MESSAGE)
        self.report_count += len(told)

        def arrive() -> None:
            if other.streams.get(host.index) is not stream or stream.is_broken:
                return
            if not self._carries(stream):
                self.world.later(0.2, 1.0, arrive)
                return
            held = stream.held[other.index]
            held.update({one.node: max(one.version, held.get(one.node, one.version)) for one in told})
            mine = other.known.reports.get(host.node)
            if mine is not None and any(one.node == host.node and one.version < mine.version for one in told):
                # It has lost its count, and has to be told.
                stream.begun.discard(other.index)
            other.receive(told)

        if self.world.faults and self.world.chance.random() < 0.02:
            self.world.disturb(host.index, other.index)
            stream.is_broken = True
            return
        is_late = self.world.faults and self.world.chance.random() < 0.05
        self.world.later(0.0, 2.5 if is_late else 0.05, arrive)
        if is_late:
            self.world.disturb(host.index, other.index)
            self.world.later(0.0, 2.5, arrive)
