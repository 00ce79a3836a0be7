"""The rank's side of Attach: dials its runner, says hello, sends what the engine says, dials again when it breaks."""

import asyncio
import contextlib
import logging
import queue
import threading
from pathlib import Path

import grpc

from thunderline.cluster import RankId
from thunderline.process.entry import first
from thunderline.rank import wire
from thunderline.rank.mark import Mark
from thunderline.rank.worker import Worker
from thunderline.rpc.channel import dial
from thunderline.v1 import rank_pb2, rank_pb2_grpc

REDIAL_S = 0.2
# Reports that wait for the runner: at 100 steps a second this is 40 s of a runner that does not read.
OUTBOX_SIZE_MAX = 4096
# A runner on a busy machine reads what was sent within this time.
READ_S = 0.25

log = logging.getLogger(__name__)


class Attachment:
    """Belongs to the event loop; `post` may be called from any thread."""

    def __init__(self, rank: RankId, mark: Mark, socket: Path, pid: int) -> None:
        self._rank = rank
        self._mark = mark
        self._target = f"unix:{socket}"
        self._pid = pid
        self._loop = asyncio.get_running_loop()
        self._outbox: asyncio.Queue[rank_pb2.AttachRequest] = asyncio.Queue(maxsize=OUTBOX_SIZE_MAX)
        # Without a bound of its own: the engine waits when `unsent_count` is large.
        self._posted: queue.SimpleQueue[rank_pb2.AttachRequest] = queue.SimpleQueue()
        threading.Thread(target=self._forward, name="forward", daemon=True).start()
        self.unattended_since_s: float | None = self._loop.time()
        self.refused = False

    def post(self, message: rank_pb2.AttachRequest) -> None:
        """Keeps the interpreter's lock: waking the loop lets it go, and the engine waited 0.6 ms for it each step."""
        self._posted.put(message)

    def _forward(self) -> None:
        # A loop that has ended wants no more.
        with contextlib.suppress(RuntimeError):
            while True:
                self._loop.call_soon_threadsafe(self._put, self._posted.get())

    def _put(self, message: rank_pb2.AttachRequest) -> None:
        if self._outbox.full():
            # Not of tokens: the engine waits long before.
            self._outbox.get_nowait()
        self._outbox.put_nowait(message)

    def _forget_unsent(self) -> None:
        """Reports of an older stream: what they held is parked. What the rank said of itself last stays."""
        kept = [self._outbox.get_nowait() for _ in range(self._outbox.qsize())]
        for message in kept:
            if message.HasField("state"):
                self._outbox.put_nowait(message)

    def unsent_count(self) -> int:
        """From any thread."""
        return self._posted.qsize() + self._outbox.qsize()

    async def flushed(self, wait_s: float) -> None:
        """Waits until what was posted is sent."""
        end_s = self._loop.time() + wait_s
        while self.unsent_count() and self._loop.time() < end_s:
            await asyncio.sleep(0.01)
        # Written is not read: what is still under way when we end is lost to the runner.
        await asyncio.sleep(READ_S)

    async def run(self, worker: Worker) -> None:
        """Until cancelled, or until the runner does not know this rank (`refused`)."""
        while not self.refused:
            try:
                async with dial(self._target) as channel:
                    await self._serve(rank_pb2_grpc.RankServiceStub(channel), worker)
            except* grpc.aio.AioRpcError as group:
                error = first(group)
                assert isinstance(error, grpc.aio.AioRpcError)
                self.refused = error.code() is grpc.StatusCode.FAILED_PRECONDITION
                log.debug("the runner is not there", extra={"why": error.details()})
            if self.unattended_since_s is None:
                self.unattended_since_s = self._loop.time()
                # Whoever read our tokens went with the stream; somebody will ask for the rest.
                worker.park_all()
            await asyncio.sleep(REDIAL_S)

    async def _serve(self, stub: "rank_pb2_grpc.RankServiceAsyncStub", worker: Worker) -> None:
        call = stub.Attach()
        self._forget_unsent()
        await call.write(rank_pb2.AttachRequest(hello=self._hello(worker)))
        # A sender that breaks ends the stream: a rank that says nothing more must not look READY.
        async with asyncio.TaskGroup() as tasks:
            sender = tasks.create_task(self._send(call))
            await call.initial_metadata()
            self.unattended_since_s = None
            async for command in call:
                match command.WhichOneof("command"):
                    case "load":
                        worker.start(command.load)
                    case "operation":
                        worker.put(command.operation)
            sender.cancel()

    async def _send(self, call: "grpc.aio.StreamStreamCall[rank_pb2.AttachRequest, rank_pb2.AttachResponse]") -> None:
        # What grpc raises for a call that has ended: who reads it hears why.
        with contextlib.suppress(asyncio.InvalidStateError):
            while True:
                await call.write(await self._outbox.get())

    def _hello(self, worker: Worker) -> rank_pb2.Hello:
        # A rank that can say hello is PREPARED; from its load on only the engine thread says where it stands.
        state = self._mark.prepared()
        return rank_pb2.Hello(
            id=wire.rank_id(self._rank),
            pid=self._pid,
            state=state.value,  # type: ignore[arg-type]
            last_operation=worker.last_operation,
            engine=worker.facts,
        )
