"""A rank without an engine: locks its map, dials its runner, speaks Attach, and echoes prompts.

Each step gives one token to every sequence: its prompt's tokens in turn, over and over. `--behave` names what it does
otherwise; the launch command of a test gives it.
"""

import argparse
import asyncio
import fcntl
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from thunderline.cluster.rank_map import RankMark, encode
from thunderline.rpc.channel import dial
from thunderline.v1 import cluster_pb2, rank_pb2, rank_pb2_grpc

VOCABULARY_SIZE, CONTEXT, KV_BUDGET = 420, 256, 200
STEP_S = 0.01
# Token of the prompt at which an engine of behaviour "resets" raises.
POISON = 7


@dataclass
class Sequence:
    insert: rank_pb2.Insert
    made: list[int] = field(default_factory=list)

    def next(self) -> rank_pb2.SequenceTokens:
        prompt = self.insert.prompt_token_ids
        self.made.append(prompt[len(self.made) % len(prompt)])
        news = rank_pb2.SequenceTokens(key=self.insert.key, token_ids=[self.made[-1]])
        if len(self.made) == 1:
            news.cached_tokens = 1
        if self.insert.logprobs:
            count = self.insert.top_logprob_count
            news.logprobs.add(logprob=-0.5, top_token_ids=range(count), top_logprobs=[-1.0] * count)
        if len(self.made) >= self.insert.max_tokens:
            news.finish_reason = cluster_pb2.FINISH_REASON_LENGTH
        return news


class StandIn:
    def __init__(self, flags: argparse.Namespace) -> None:
        self.flags = flags
        self.sequences: dict[int, Sequence] = {}
        self.last_operation = 0
        self.step = 0
        self.state = cluster_pb2.RANK_STATE_PREPARED
        self.engine: cluster_pb2.EngineFacts | None = None

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
                    sys.exit(5)
            await asyncio.sleep(0.05)
        sys.exit(5)

    async def listen(self, call: "grpc.aio.StreamStreamCall[rank_pb2.AttachRequest, rank_pb2.AttachResponse]") -> None:
        async for command in call:
            if command.HasField("load"):
                await self.load(call, command.load)
                continue
            operation = command.operation
            assert operation.number == self.last_operation + 1, (operation.number, self.last_operation)
            self.last_operation = operation.number
            print("operation", operation.WhichOneof("operation"), operation.number, flush=True)
            if operation.HasField("insert"):
                insert = operation.insert
                self.sequences[insert.key] = Sequence(insert, list(insert.resume_token_ids))
            elif operation.HasField("park"):
                self.sequences.pop(operation.park.key, None)
            else:
                self.sequences.pop(operation.remove.key, None)

    async def load(
        self,
        call: "grpc.aio.StreamStreamCall[rank_pb2.AttachRequest, rank_pb2.AttachResponse]",
        load: rank_pb2.Load,
    ) -> None:
        async def say(state: cluster_pb2.RankState.ValueType, **more: object) -> None:
            self.state = state
            change = rank_pb2.StateChange(state=state, **more)  # type: ignore[arg-type]
            await call.write(rank_pb2.AttachRequest(state=change))

        print("load", load.folder, list(load.end_token_ids), flush=True)
        behave = self.flags.behave
        for loaded in (0, 50, 100):
            progress = cluster_pb2.LoadProgress(loaded_bytes=loaded, total_bytes=100)
            await say(cluster_pb2.RANK_STATE_LOADING, load=progress)
            if behave == "load_stalls":
                await asyncio.Event().wait()
        if behave == "load_fails":
            cause = cluster_pb2.ExitCause(name="LOAD_FAILED", detail="no such architecture", permanent=True)
            await say(cluster_pb2.RANK_STATE_FAILED, cause=cause)
            # As the real one does: what is still under way at the end is lost.
            await asyncio.sleep(0.25)
            sys.exit(3)
        if behave == "load_crashes":
            print("out of memory, it says", flush=True)
            os.kill(os.getpid(), signal.SIGABRT)
        await say(cluster_pb2.RANK_STATE_WARMING)
        self.engine = cluster_pb2.EngineFacts(
            vocabulary_size=VOCABULARY_SIZE, context_length_tokens=CONTEXT, kv_budget_tokens=KV_BUDGET, device="none"
        )
        await say(cluster_pb2.RANK_STATE_READY, engine=self.engine)

    async def steps(self, call: "grpc.aio.StreamStreamCall[rank_pb2.AttachRequest, rank_pb2.AttachResponse]") -> None:
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
    parser.add_argument("--runner-gone-s", type=float, required=True)
    parser.add_argument("--behave", default="")
    flags = parser.parse_args()
    held = flags.map.open("r+b")
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    held.write(encode(RankMark(pid=os.getpid()), 2))
    held.flush()
    if flags.behave == "ignores_sigterm":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if flags.behave == "never_dials":
        signal.pause()
    asyncio.run(StandIn(flags).run())


if __name__ == "__main__":
    main()
