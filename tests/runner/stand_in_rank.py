"""A rank without an engine: locks its map, dials its runner, speaks Attach, and echoes prompts.

Each step gives one token to every sequence: its prompt's tokens in turn, over and over. When its stream breaks it parks
them all. `--behave` names what it does otherwise; the launch command of a test gives it.
"""

import argparse
import asyncio
import contextlib
import faulthandler
import fcntl
import os
import signal
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import psutil

from thunderline.cluster.rank_map import RankMark, encode
from thunderline.cluster.ranks import RankState
from thunderline.process.boot import boot_id
from thunderline.rpc.channel import dial
from thunderline.v1 import cluster_pb2, rank_pb2, rank_pb2_grpc

VOCABULARY_SIZE, CONTEXT, KV_BUDGET = 420, 256, 200
STEP_S = 0.01
# Token of the prompt at which an engine of behaviour "resets" raises.
POISON = 7

Call = grpc.aio.StreamStreamCall[rank_pb2.AttachRequest, rank_pb2.AttachResponse]


@dataclass
class Sequence:
    insert: rank_pb2.Insert
    made: list[int] = field(default_factory=list)
    # Made before a resume asked for them.
    owed: list[int] = field(default_factory=list)

    def next(self) -> rank_pb2.SequenceTokens:
        prompt = self.insert.prompt_token_ids
        self.made.append(prompt[len(self.made) % len(prompt)])
        news = rank_pb2.SequenceTokens(key=self.insert.key, token_ids=[*self.owed, self.made[-1]])
        self.owed = []
        if len(self.made) == 1:
            news.cached_tokens = 1
        if self.insert.logprobs:
            count = self.insert.top_logprob_count
            news.logprobs.add(logprob=-0.5, top_token_ids=range(count), top_logprobs=[-1.0] * count)
        if len(self.made) >= self.insert.max_tokens:
            news.finish_reason = cluster_pb2.FINISH_REASON_LENGTH
        return news


class Map:
    """The rank's map, locked until the process ends."""

    def __init__(self, path: Path) -> None:
        self.held = path.open("r+b", buffering=0)
        fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.sequence = 0
        self.mark = RankMark(os.getpid(), psutil.Process().create_time(), boot_id())

    def write(self, **changes: Any) -> None:
        self.mark = replace(self.mark, **changes)
        self.sequence += 2
        self.held.seek(0)
        self.held.write(encode(self.mark, self.sequence))


class StandIn:
    def __init__(self, flags: argparse.Namespace, held: Map) -> None:
        self.flags = flags
        self.map = held
        self.call: Call | None = None
        self.loading: asyncio.Task[None] | None = None
        self.parked: dict[str, Sequence] = {}
        self.sequences: dict[int, Sequence] = {}
        self.last_operation = 0
        self.step = 0
        self.enter(cluster_pb2.RANK_STATE_PREPARED)
        self.engine: cluster_pb2.EngineFacts | None = None

    def enter(self, state: cluster_pb2.RankState.ValueType) -> None:
        self.state = state
        self.map.write(state=RankState(state))

    async def run(self) -> None:
        """Until it has no runner for the time it was given."""
        gone_at_s = asyncio.get_running_loop().time() + self.flags.runner_gone_s
        while asyncio.get_running_loop().time() < gone_at_s:
            try:
                async with dial(f"unix:{self.flags.socket}") as channel:
                    call = rank_pb2_grpc.RankServiceStub(channel).Attach()
                    hello = rank_pb2.Hello(
                        id=cluster_pb2.RankId(
                            instance=self.flags.instance, epoch=self.flags.epoch, rank=self.flags.rank
                        ),
                        pid=os.getpid(),
                        state=self.state,
                        last_operation=self.last_operation,
                        engine=self.engine,
                    )
                    await call.write(rank_pb2.AttachRequest(hello=hello))
                    await call.initial_metadata()
                    self.call = call
                    async with asyncio.TaskGroup() as tasks:
                        steps = tasks.create_task(self.steps(call))
                        try:
                            await self.listen(call)
                        finally:
                            steps.cancel()
            except* grpc.aio.AioRpcError as group:
                error = group.exceptions[0]
                assert isinstance(error, grpc.aio.AioRpcError)
                print("the runner is not there:", error.code(), error.details(), flush=True)
                if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                    self.end(5)
            if self.call is not None:
                gone_at_s = asyncio.get_running_loop().time() + self.flags.runner_gone_s
                self.call = None
            self.parked |= {one.insert.request_id: one for one in self.sequences.values()}
            self.sequences.clear()
            await asyncio.sleep(0.05)
        self.end(5)

    def end(self, code: int) -> None:
        self.map.write(exit_code=code)
        sys.exit(code)

    async def listen(self, call: Call) -> None:
        async for command in call:
            if command.HasField("load"):
                self.loading = self.loading or asyncio.create_task(self.load(command.load))
                continue
            operation = command.operation
            assert operation.number == self.last_operation + 1, (operation.number, self.last_operation)
            self.last_operation = operation.number
            print("operation", operation.WhichOneof("operation"), operation.number, flush=True)
            if operation.HasField("insert"):
                self.insert(operation.insert)
            elif operation.HasField("park"):
                if lost := self.sequences.pop(operation.park.key, None):
                    self.parked[lost.insert.request_id] = lost
            else:
                self.sequences.pop(operation.remove.key, None)

    def insert(self, insert: rank_pb2.Insert) -> None:
        one = self.sequences[insert.key] = Sequence(insert, list(insert.resume_token_ids))
        parked = self.parked.pop(insert.request_id, None)
        count = len(one.made)
        if parked is not None and parked.made[:count] == one.made:
            one.made, one.owed = list(parked.made), parked.made[count:]
            print("taken from parking", len(one.made), flush=True)

    async def say(self, state: cluster_pb2.RankState.ValueType, **more: Any) -> None:
        self.enter(state)
        change = rank_pb2.StateChange(state=state, **more)
        if self.call is not None:
            # A stream that has broken: its next hello says it.
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self.call.write(rank_pb2.AttachRequest(state=change))

    async def load(self, load: rank_pb2.Load) -> None:
        print("load", load.folder, list(load.end_token_ids), flush=True)
        behave = self.flags.behave
        for loaded in (0, 50, 100):
            progress = cluster_pb2.LoadProgress(loaded_bytes=loaded, total_bytes=100)
            await self.say(cluster_pb2.RANK_STATE_LOADING, load=progress)
            if behave == "load_stalls":
                await asyncio.Event().wait()
        if behave == "load_fails":
            cause = cluster_pb2.ExitCause(name="LOAD_FAILED", detail="no such architecture", permanent=True)
            await self.say(cluster_pb2.RANK_STATE_FAILED, cause=cause)
            # As the real one does: what is still under way at the end is lost.
            await asyncio.sleep(0.25)
            self.map.write(exit_code=3)
            os._exit(3)
        if behave == "load_waits":
            while not (self.flags.home / "go").exists():
                await asyncio.sleep(0.02)
        if behave == "load_crashes":
            print("out of memory, it says", flush=True)
            os.kill(os.getpid(), signal.SIGABRT)
        await self.say(cluster_pb2.RANK_STATE_WARMING)
        self.engine = cluster_pb2.EngineFacts(
            vocabulary_size=VOCABULARY_SIZE, context_length_tokens=CONTEXT, kv_budget_tokens=KV_BUDGET, device="none"
        )
        await self.say(cluster_pb2.RANK_STATE_READY, engine=self.engine)

    async def steps(self, call: Call) -> None:
        while True:
            await asyncio.sleep(STEP_S)
            if not self.sequences:
                continue
            if any(POISON in one.insert.prompt_token_ids for one in self.sequences.values()):
                keys = list(self.sequences)
                self.sequences.clear()
                await call.write(rank_pb2.AttachRequest(reset=rank_pb2.EngineReset(keys=keys, cause="ValueError")))
                continue
            self.step += 1
            self.map.write(step=self.step)
            report = rank_pb2.StepReport(
                step=self.step,
                sequences=[one.next() for one in self.sequences.values()],
                duration_us=int(STEP_S * 1e6),
                running_count=len(self.sequences),
            )
            for news in report.sequences:
                if news.finish_reason:
                    del self.sequences[news.key]
            await call.write(rank_pb2.AttachRequest(step=report))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, kind in (("home", Path), ("instance", str), ("epoch", int), ("rank", int), ("map", Path)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    for name in ("runner-gone", "prepare", "load-stall", "warm-up"):
        parser.add_argument(f"--{name}-s", type=float, required=True)
    parser.add_argument("--behave", default="")
    flags = parser.parse_args()
    faulthandler.enable()
    held = Map(flags.map)
    held.write()
    if flags.behave == "ignores_sigterm":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if flags.behave == "never_dials":
        signal.pause()
    asyncio.run(StandIn(flags, held).run())


if __name__ == "__main__":
    main()
