"""Measures one direction of a link when somebody asks for it: RTTs by 20 probes, bandwidth by 4 TCP streams.

The peer's echo takes the streams' bytes only with a permit, which its topology gives over gRPC to members alone, for
one measurement and some seconds: a stranger at the echo port cannot make a node swallow anything.
"""

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import target
from thunderline.cluster.errors import Draining, Full, InvalidRequest, LinkInUse, NotFound, Unreachable
from thunderline.cluster.links import LinkState
from thunderline.process.trust import Wallet
from thunderline.rpc.channel import dial
from thunderline.rpc.errors import from_call
from thunderline.topology.echo_messages import (
    ANSWER_BYTES,
    TALLY_BYTES,
    Ask,
    BadMessage,
    Kind,
    Speaker,
    Tally,
    pack_ask,
    unpack_answer,
    unpack_tally,
)
from thunderline.topology.ends import Ends
from thunderline.topology.knowledge import Knowledge
from thunderline.topology.members import Peer
from thunderline.topology.permits import STREAM_COUNT
from thunderline.topology.probe import Aim, Crossed, probe
from thunderline.topology.sockets import Sockets, dialled, left_s, receive
from thunderline.v1 import topology_pb2, topology_pb2_grpc

PROBE_COUNT = 20
PROBE_GAP_S = 0.05
SEND_S = 10.0
# What is on a slow way when the sending ends: buffers of 4 MB at 5 Mb/s.
DRAIN_S = 8.0
PART_BYTES = 256 * 1024
# Of a call to the peer.
CALL_S = 5.0
# All of it: 20 probes that are lost, the sending, what is on the way.
MEASURE_S = 60.0


class Measuring:
    """One measurement at a time. `send_s`: how long its streams send.

    One that is given up, by its caller or by `stop`, ends its threads: no later than one probe does.
    """

    def __init__(
        self, knowledge: Knowledge, speaker: Speaker, ends: Ends, timeout_s: float, wallet: Wallet | None
    ) -> None:
        self._knowledge = knowledge
        self._speaker = speaker
        self._ends = ends
        self._timeout_s = timeout_s
        self._wallet = wallet
        self._is_busy = self._stopped = False
        self._under_way: set[asyncio.Task[topology_pb2.MeasureLinkResponse]] = set()
        self.send_s = SEND_S

    async def measure(self, request: topology_pb2.MeasureLinkRequest) -> topology_pb2.MeasureLinkResponse:
        """Raises NotFound, Full, LinkInUse, Unreachable, Draining, and what another node raises that is asked."""
        work = asyncio.create_task(self._measured(request))
        self._under_way.add(work)
        work.add_done_callback(self._under_way.discard)
        if self._stopped:
            work.cancel()
        try:
            return await work
        except asyncio.CancelledError:
            if self._stopped:
                raise Draining("the role is stopping") from None
            raise

    def stop(self) -> None:
        """Gives up what is under way, and what comes."""
        self._stopped = True
        for work in self._under_way:
            work.cancel()

    async def _measured(self, request: topology_pb2.MeasureLinkRequest) -> topology_pb2.MeasureLinkResponse:
        if request.from_node_id not in ("", self._knowledge.node):
            return await self._passed_on(request)
        peer, address = self._aim(NodeId(request.peer_node_id), request.peer_address)
        if request.bandwidth and request.in_use:
            raise LinkInUse(f"an instance serves over the link to {address}: its bandwidth is not measured now")
        with self._alone() as sockets:
            aim = Aim(peer.node, address, peer.echo_port)
            response = summary(await asyncio.to_thread(self._rtts_us, aim, sockets))
            if request.bandwidth:
                permit = await self._permit(peer, address)
                response.bandwidth_bits_per_s = await asyncio.to_thread(
                    bandwidth, self._speaker, aim, permit, self.send_s, self._timeout_s, sockets
                )
            return response

    def _aim(self, node: NodeId, address: str) -> tuple[Peer, str]:
        peer = self._knowledge.members.peers.get(node)
        if peer is None:
            raise NotFound(f"no other member has the id {node!r}", param="peer_node_id")
        links = self._knowledge.by_pair.get((self._knowledge.node, node), ())
        if not any(link.address == address and link.state is not LinkState.DOWN for link in links):
            raise NotFound(f"no link to {address!r} of node {node} is there now", param="peer_address")
        return peer, address

    async def _passed_on(self, request: topology_pb2.MeasureLinkRequest) -> topology_pb2.MeasureLinkResponse:
        """To the node that shall measure; it passes nothing on."""
        peer = self._knowledge.members.peers.get(NodeId(request.from_node_id))
        if peer is None:
            raise NotFound(f"no other member has the id {request.from_node_id!r}", param="from_node_id")
        address = self._knowledge.best(peer.node)
        if not address:
            raise Unreachable(f"node {peer.node} cannot be dialled from here to be asked")
        async with self._stub(peer, address) as stub:
            try:
                return await stub.MeasureLink(request, timeout=MEASURE_S)
            except grpc.aio.AioRpcError as error:
                raise from_call(error) from None

    async def _permit(self, peer: Peer, address: str) -> bytes:
        async with self._stub(peer, address) as stub:
            try:
                request = topology_pb2.PrepareMeasurementRequest()
                return (await stub.PrepareMeasurement(request, timeout=CALL_S)).permit
            except grpc.aio.AioRpcError as error:
                raise from_call(error) from None

    def _stub(self, peer: Peer, address: str) -> "_Stub":
        return _Stub(dial(target(address, peer.topology_port), self._wallet, peer.node))

    def _rtts_us(self, aim: Aim, sockets: Sockets) -> list[int | None]:
        """None for each that was not answered. Blocking."""
        found: list[int | None] = []
        while len(found) < PROBE_COUNT and not sockets.is_over:
            one = probe(self._speaker, aim, self._ends, self._timeout_s)
            found.append(one.rtt_us if isinstance(one, Crossed) else None)
            time.sleep(PROBE_GAP_S)
        return found

    @contextmanager
    def _alone(self) -> Iterator[Sockets]:
        if self._is_busy:
            raise Full("this node measures another link now", retry_after_s=self.send_s)
        self._is_busy, sockets = True, Sockets()
        try:
            yield sockets
        finally:
            sockets.end()
            self._is_busy = False


class _Stub:
    """A stub for the time of a block, with a channel of its own."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def __aenter__(self) -> "topology_pb2_grpc.TopologyServiceAsyncStub":
        return topology_pb2_grpc.TopologyServiceStub(self._channel)

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()


def summary(rtts_us: Sequence[int | None]) -> topology_pb2.MeasureLinkResponse:
    """Of 20 probes, None for one that was lost."""
    known = [one for one in rtts_us if one is not None]
    if not known:
        return topology_pb2.MeasureLinkResponse(lost_count=len(rtts_us))
    return topology_pb2.MeasureLinkResponse(
        rtt_us=int(statistics.median(known)),
        rtt_min_us=min(known),
        rtt_max_us=max(known),
        rtt_avg_us=round(statistics.fmean(known)),
        rtt_stddev_us=round(statistics.pstdev(known)),
        lost_count=len(rtts_us) - len(known),
    )


def bandwidth(
    speaker: Speaker, aim: Aim, permit: bytes, send_s: float, timeout_s: float, sockets: Sockets | None = None
) -> int:
    """Bits per second that have arrived, by the peer's own count. Blocking, until `sockets` end. Raises Unreachable."""
    if not permit:
        raise InvalidRequest("the peer gave no permit")
    held = sockets or Sockets()
    try:
        with ThreadPoolExecutor(STREAM_COUNT, thread_name_prefix="bandwidth") as pool:
            streams = [pool.submit(_stream, speaker, aim, permit, send_s, timeout_s, held) for _ in range(STREAM_COUNT)]
            tallies = [one.result() for one in streams]
    except (OSError, BadMessage) as error:
        raise Unreachable(f"the measurement to {aim.address} broke off: {error}") from None
    return tallied(tallies)


def tallied(tallies: Sequence[Tally]) -> int:
    """Bits per second of streams side by side: all that came, by the longest of their times."""
    longest_us = max(one.elapsed_us for one in tallies)
    return sum(one.taken_bytes for one in tallies) * 8 * 1_000_000 // longest_us


def _stream(speaker: Speaker, aim: Aim, permit: bytes, send_s: float, timeout_s: float, sockets: Sockets) -> Tally:
    """Raises OSError, BadMessage."""
    deadline_s = time.monotonic() + timeout_s
    with dialled(aim.address, aim.echo_port, deadline_s) as connection, sockets.holding(connection):
        connection.sendall(pack_ask(Ask(Kind.SINK, speaker, permit)))
        answer = unpack_answer(receive(connection, ANSWER_BYTES, deadline_s))
        if answer.kind is not Kind.SINK or answer.speaker != Speaker(aim.peer, speaker.cluster):
            raise BadMessage("another node answers")
        part = bytes(PART_BYTES)
        end_s = time.monotonic() + send_s
        while time.monotonic() < end_s:
            connection.settimeout(max(end_s - time.monotonic(), 0.001))
            try:
                connection.send(part)
            except TimeoutError:
                break
        connection.settimeout(left_s(end_s + DRAIN_S))
        # SHUT_WR: what is still on the way arrives.
        connection.shutdown(1)
        return unpack_tally(receive(connection, TALLY_BYTES, end_s + DRAIN_S))
