"""Stories of the process: a rank started by exec, and a small runner of the test's own on a Unix socket."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from thunderline.cluster.errors import StaleEpoch
from thunderline.cluster.rank_map import SIZE_BYTES, RankMark, decode
from thunderline.cluster.ranks import RankState
from thunderline.rpc import server
from thunderline.v1 import cluster_pb2, rank_pb2, rank_pb2_grpc

# Imports on a busy machine.
WAIT_S = 30.0
RUNNER_GONE_S = 1.0
Message = rank_pb2.AttachRequest


class SmallRunner(rank_pb2_grpc.RankServiceServicer):
    """Notes what a rank says, and sends it what the test puts into `commands`."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.commands: asyncio.Queue[rank_pb2.AttachResponse] = asyncio.Queue(maxsize=100)
        self.refusal: Exception | None = None
        self._news = asyncio.Condition()

    async def Attach(self, requests: Any, context: Any) -> None:  # type: ignore[override]
        if self.refusal is not None:
            raise self.refusal
        sender = asyncio.create_task(self._send(context))
        try:
            while isinstance(message := await context.read(), Message):
                async with self._news:
                    self.messages.append(message)
                    self._news.notify_all()
        finally:
            sender.cancel()

    async def _send(self, context: Any) -> None:
        await context.send_initial_metadata(())
        while True:
            await context.write(await self.commands.get())

    async def until(self, seen: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S), self._news:
            await self._news.wait_for(seen)

    @property
    def states(self) -> list[RankState]:
        """As the rank told them, its hellos too, without repetitions."""
        told = [message.hello.state or message.state.state for message in self.messages if not message.HasField("step")]
        return [RankState(state) for i, state in enumerate(told) if i == 0 or state != told[i - 1]]

    def tokens(self, key: int) -> list[int]:
        reports = [news for message in self.messages for news in message.step.sequences if news.key == key]
        return [token for news in reports for token in news.token_ids]

    def finish(self, key: int) -> int:
        reports = [news for message in self.messages for news in message.step.sequences if news.key == key]
        return max((news.finish_reason for news in reports), default=0)

    def load(self, folder: Path) -> None:
        placement = cluster_pb2.Placement(instance="i1", epoch=3, kv_budget_tokens=4096)
        load = rank_pb2.Load(batching="batch", placement=placement, folder=str(folder), end_token_ids=[2])
        self.commands.put_nowait(rank_pb2.AttachResponse(load=load))

    def operate(self, number: int, **operation: Any) -> None:
        self.commands.put_nowait(rank_pb2.AttachResponse(operation=rank_pb2.Operation(number=number, **operation)))


def insert(key: int, max_tokens: int, **sampling: Any) -> rank_pb2.Insert:
    return rank_pb2.Insert(
        key=key,
        request_id=f"request {key}",
        prompt_token_ids=range(10, 30),
        sampling=cluster_pb2.Sampling(**sampling),
        max_tokens=max_tokens,
        ignore_eos=True,
    )


class Place:
    """A rank's home: its map, its socket, its process."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.map = home / "i1-3-0.map"
        self.map.write_bytes(bytes(SIZE_BYTES))
        self.socket = home / "runner.sock"
        self.runner = SmallRunner()
        self.process: asyncio.subprocess.Process | None = None

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[SmallRunner]:
        def register(grpc_server: Any) -> None:
            rank_pb2_grpc.add_RankServiceServicer_to_server(self.runner, grpc_server)

        async with server.serving(f"unix:{self.socket}", ["thunderline.v1.RankService"], register):
            yield self.runner

    async def start(self) -> asyncio.subprocess.Process:
        flags = {"home": self.home, "instance": "i1", "epoch": 3, "rank": 0, "map": self.map, "socket": self.socket}
        flags["runner-gone-s"] = RUNNER_GONE_S
        arguments = [part for key, value in flags.items() for part in (f"--{key}", str(value))]
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "thunderline.rank", *arguments, stdin=asyncio.subprocess.DEVNULL, cwd=self.home
        )
        return self.process

    @property
    def mark(self) -> RankMark | None:
        return decode(self.map.read_bytes())

    async def end(self) -> int:
        """The exit code; the rank has to end by itself."""
        assert self.process is not None
        async with asyncio.timeout(WAIT_S):
            return await self.process.wait()


@pytest.fixture
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    # Short: a socket's path holds 100 bytes.
    found = Place(tmp_path_factory.mktemp("r"))
    yield found
    if found.process is not None and found.process.returncode is None:
        found.process.kill()
        await found.process.wait()


async def test_from_hello_to_tokens_to_sigterm(place: Place, tiny_folder: Path) -> None:
    async with place.serving() as runner:
        process = await place.start()
        await runner.until(lambda: bool(runner.messages))
        hello = runner.messages[0].hello
        assert (hello.id.instance, hello.id.epoch, hello.id.rank) == ("i1", 3, 0)
        assert (hello.pid, hello.state) == (process.pid, cluster_pb2.RANK_STATE_PREPARED)
        runner.load(tiny_folder)
        await runner.until(lambda: runner.states[-1] is RankState.READY)
        S = RankState
        assert runner.states == [S.PREPARED, S.LOADING, S.WARMING, S.READY]
        progress = [m.state.load for m in runner.messages if m.state.HasField("load")]
        assert progress[-1].loaded_bytes == progress[-1].total_bytes > 0
        engine = runner.messages[-1].state.engine
        assert (engine.kv_budget_tokens, engine.context_length_tokens, engine.vocabulary_size) == (4096, 2048, 512)
        assert (engine.batching, engine.device) == ("batch", "cpu" if sys.platform == "linux" else engine.device)
        runner.operate(1, insert=insert(1, 12))
        runner.operate(2, insert=insert(2, 12, temperature=0.8, seed=7))
        await runner.until(lambda: runner.finish(1) > 0 and runner.finish(2) > 0)
        assert (len(runner.tokens(1)), len(runner.tokens(2))) == (12, 12)
        runner.operate(3, insert=insert(3, 12))
        runner.operate(4, insert=insert(4, 12, temperature=0.8, seed=7))
        await runner.until(lambda: runner.finish(3) > 0 and runner.finish(4) > 0)
        assert runner.tokens(3) == runner.tokens(1)
        assert runner.tokens(4) == runner.tokens(2)
        mark = place.mark
        assert mark is not None
        assert (mark.pid, mark.state) == (process.pid, S.READY)
        assert mark.step > 12
        # In the middle of its work it finishes the step and goes.
        runner.operate(5, insert=insert(5, 2000))
        await runner.until(lambda: len(runner.tokens(5)) > 5)
        process.send_signal(signal.SIGTERM)
        assert await place.end() == 0


async def test_sigterm_right_after_ready_is_an_order_too(place: Place, tiny_folder: Path) -> None:
    async with place.serving() as runner:
        process = await place.start()
        runner.load(tiny_folder)
        await runner.until(lambda: bool(runner.states) and runner.states[-1] is RankState.READY)
        process.send_signal(signal.SIGTERM)
        assert await place.end() == 0


async def test_a_removed_sequence_leaves_the_rank_idle(place: Place, tiny_folder: Path) -> None:
    async with place.serving() as runner:
        await place.start()
        runner.load(tiny_folder)
        await runner.until(lambda: bool(runner.states) and runner.states[-1] is RankState.READY)
        runner.operate(1, insert=insert(1, 2000))
        await runner.until(lambda: len(runner.tokens(1)) > 3)
        runner.operate(2, remove=rank_pb2.Remove(key=1))
        runner.operate(3, insert=insert(2, 4))
        await runner.until(lambda: runner.finish(2) > 0)
        assert len(runner.tokens(1)) < 2000
        assert runner.finish(1) == 0


async def test_what_a_runner_loses_goes_on_from_parking_with_the_next(place: Place, tiny_folder: Path) -> None:
    async with place.serving() as runner:
        await place.start()
        runner.load(tiny_folder)
        await runner.until(lambda: bool(runner.states) and runner.states[-1] is RankState.READY)
        sampled = {"temperature": 0.8, "seed": 7}
        runner.operate(1, insert=insert(1, 800, **sampled))
        await runner.until(lambda: len(runner.tokens(1)) > 5)
        delivered = runner.tokens(1)[:5]
    place.runner = SmallRunner()
    async with place.serving() as runner:
        await runner.until(lambda: bool(runner.messages))
        assert runner.messages[0].hello.last_operation == 1
        again = insert(2, 800, **sampled)
        again.request_id = "request 1"
        again.resume_token_ids[:] = delivered
        runner.operate(2, insert=again)
        runner.operate(3, insert=insert(3, 800, **sampled))
        await runner.until(lambda: runner.finish(2) > 0 and runner.finish(3) > 0)
        assert delivered + runner.tokens(2) == runner.tokens(3)
        assert runner.tokens(1) == [], "what an older stream did not take is not sent to the next"
        # The resume came first and cost no prefill: its first report has none, and many tokens.
        first = next(message.step for message in runner.messages if message.step.sequences)
        assert [(news.key, len(news.token_ids) > 1) for news in first.sequences] == [(2, True)]


async def test_a_rank_that_ends_itself_leaves_its_exit_code_in_its_map(place: Place) -> None:
    await place.start()
    assert await place.end() == 5
    mark = place.mark
    assert mark is not None
    assert (mark.exit_code, mark.state) == (5, RankState.PREPARED)


async def test_a_rank_whose_runner_is_gone_ends_itself(place: Place, tiny_folder: Path) -> None:
    async with place.serving() as runner:
        await place.start()
        runner.load(tiny_folder)
        await runner.until(lambda: bool(runner.states) and runner.states[-1] is RankState.READY)
        # It works when the runner goes: nobody will read that.
        runner.operate(1, insert=insert(1, 2000))
        await runner.until(lambda: len(runner.tokens(1)) > 3)
    assert await place.end() == 5


async def test_a_rank_that_never_finds_a_runner_ends_itself(place: Place) -> None:
    await place.start()
    assert await place.end() == 5


async def test_a_rank_that_nobody_wants_ends_itself(place: Place) -> None:
    place.runner.refusal = StaleEpoch("no such rank is wanted here")
    async with place.serving():
        await place.start()
        assert await place.end() == 5


async def test_a_rank_says_hello_again_to_a_restarted_runner(place: Place, tiny_folder: Path) -> None:
    async with place.serving() as runner:
        await place.start()
        runner.load(tiny_folder)
        await runner.until(lambda: bool(runner.states) and runner.states[-1] is RankState.READY)
        runner.operate(1, insert=insert(1, 4))
        await runner.until(lambda: runner.finish(1) > 0)
    place.runner = SmallRunner()
    async with place.serving() as runner:
        await runner.until(lambda: bool(runner.messages))
        hello = runner.messages[0].hello
        assert (hello.state, hello.last_operation) == (cluster_pb2.RANK_STATE_READY, 1)
        assert hello.engine.vocabulary_size == 512
        runner.operate(2, insert=insert(1, 4))
        await runner.until(lambda: runner.finish(1) > 0)


def _without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _with_truncated_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size // 2)


def _of_an_unknown_kind(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "no_such_architecture"}))


def _with_other_shapes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 128}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(_without_weights, "No safetensors found", id="no weights"),
        pytest.param(_with_truncated_weights, "exceeding the size of the file", id="truncated weights"),
        pytest.param(_of_an_unknown_kind, "no_such_architecture not supported", id="an unknown architecture"),
        pytest.param(_with_other_shapes, "Expected shape", id="weights of another shape"),
    ],
)
async def test_a_model_that_cannot_be_loaded_is_a_permanent_cause(
    place: Place, tiny_folder: Path, spoil: Callable[[Path], None], words: str
) -> None:
    folder = place.home / "model"
    shutil.copytree(tiny_folder, folder)
    spoil(folder)
    async with place.serving() as runner:
        await place.start()
        runner.load(folder)
        await runner.until(lambda: bool(runner.states) and runner.states[-1] is RankState.FAILED)
        cause = runner.messages[-1].state.cause
        assert (cause.name, cause.permanent) == ("LOAD_FAILED", True)
        assert words in cause.detail
        assert await place.end() == 3


async def test_a_map_that_another_process_holds_is_refused(place: Place) -> None:
    async with place.serving() as runner:
        first = await place.start()
        await runner.until(lambda: bool(runner.messages))
        await place.start()
        assert await place.end() != 0
        assert first.returncode is None
        first.kill()
        await first.wait()
