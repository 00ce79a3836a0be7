"""`thunderline discovery` as it is started: found by a seed, killed, restarted, remembered."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import psutil

from discovery.little_discovery import free_port, until
from process.macos.little_mac import LittleMac
from thunderline.client import DiscoveryClient
from thunderline.cluster.errors import Unreachable
from thunderline.discovery.memory import FILE, remembered
from thunderline.v1 import discovery_pb2

WAIT_S = 30.0
LIMITS = {"HEARTBEAT_S": "0.5", "SUSPECT_S": "1", "DEAD_S": "2"}
Look = Callable[[discovery_pb2.Roster], bool]


def free_discovery_port() -> int:
    """With the port of its metrics free too."""
    while True:
        port = free_port()
        taken = {one.laddr.port for one in psutil.net_connections("tcp") if one.laddr}
        if port < 65_000 and port + 100 not in taken:
            return port


@dataclass
class Process:
    home: Path
    seeds: list[str] = field(default_factory=list)
    port: int = field(default_factory=free_discovery_port)
    running: "subprocess.Popen[bytes] | None" = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("THUNDERLINE_")}
        limits = {f"THUNDERLINE_LIMITS_{name}": value for name, value in LIMITS.items()}
        program = Path(sys.executable).parent / "thunderline"
        seeds = ["--seeds", ",".join(self.seeds)] if self.seeds else []
        self.home.mkdir(exist_ok=True)
        with (self.home / "err").open("ab") as errors:
            self.running = subprocess.Popen(
                [str(program), "discovery", "--home", str(self.home), "--port", str(self.port), *seeds],
                env={**inherited, **limits, **self.environment},
                stderr=errors,
            )

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        assert self.running is not None
        self.running.send_signal(number)
        return self.running.wait(WAIT_S)

    @property
    def said(self) -> str:
        return (self.home / "err").read_text()

    async def roster(self) -> discovery_pb2.Roster:
        async with DiscoveryClient(self.target) as client:
            return await client.roster()

    async def until(self, what: str, look: Look) -> discovery_pb2.Roster:
        newest = discovery_pb2.Roster()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                while True:
                    with contextlib.suppress(Unreachable):
                        newest = await self.roster()
                        if look(newest):
                            return newest
                    await asyncio.sleep(0.05)
        raise AssertionError(f"not within {WAIT_S} s: {what}: {newest}\n{self.said}")


def alive(count: int) -> Look:
    """So many members, and all of them ALIVE."""
    return lambda roster: [one.state for one in roster.members] == [discovery_pb2.MEMBER_STATE_ALIVE] * count


@contextlib.asynccontextmanager
async def two(folder: Path) -> AsyncIterator[tuple[Process, Process]]:
    """The second knows the first as its seed."""
    a = Process(folder / "a")
    b = Process(folder / "b", [a.target])
    a.start()
    b.start()
    try:
        await a.until("both are there", alive(2))
        await b.until("both are there", alive(2))
        yield a, b
    finally:
        for one in (a, b):
            if one.running is not None and one.running.poll() is None:
                one.end()


async def test_a_killed_discovery_comes_back_as_the_same_member_and_counts_its_starts(tmp_path: Path) -> None:
    async with two(tmp_path) as (a, b):
        own = (await b.roster()).node_id
        before = await a.roster()
        b.end()
        b.start()

        def again(roster: discovery_pb2.Roster) -> bool:
            return [one.card.incarnation for one in roster.members if one.card.node_id == own] == [2]

        after = await a.until("its second life", again)
        assert len(after.members) == 2
        assert not after.twins
        assert after.version > before.version
        wanted = ('thunderline_members{state="ALIVE"} 2.0', 'thunderline_card_exchanges_total{result="served"}')
        async with httpx.AsyncClient() as client, asyncio.timeout(WAIT_S):
            # Counted at a pace.
            while True:
                metrics = (await client.get(f"http://127.0.0.1:{a.port + 100}/metrics")).text
                if all(one in metrics for one in wanted):
                    break
                await asyncio.sleep(0.1)
        for one in (a, b):
            assert one.end(signal.SIGTERM) == 0


async def test_members_are_known_after_a_restart_without_a_seed_until_one_leaves(tmp_path: Path) -> None:
    async with two(tmp_path) as (a, b):
        await until("it is written down", lambda: len(remembered(a.home)) == 1, WAIT_S)
        b.end()
        a.end()
        a.start()
        own = (await a.until("it looks for b", lambda roster: len(roster.members) == 2)).node_id
        roster = await a.until("it is dead", lambda roster: roster.complete and not alive(2)(roster))
        (gone,) = [one for one in roster.members if one.card.node_id != own]
        assert gone.state == discovery_pb2.MEMBER_STATE_DEAD
        async with DiscoveryClient(a.target) as client:
            await client.leave(gone.card.node_id)  # type: ignore[arg-type]
        await until("it is forgotten", lambda: remembered(a.home) == (), WAIT_S)


async def test_a_broken_memory_is_no_reason_not_to_start(tmp_path: Path) -> None:
    one = Process(tmp_path / "a")
    one.home.mkdir()
    (one.home / FILE).write_text("{")
    one.start()
    try:
        await one.until("it answers", alive(1))
        assert "cannot be read" in one.said
    finally:
        one.end()


async def test_a_node_alone_is_complete_at_once_and_one_who_looks_for_others_later(tmp_path: Path) -> None:
    alone, looking = Process(tmp_path / "a"), Process(tmp_path / "b", [f"127.0.0.1:{free_port()}"])
    for one in (alone, looking):
        one.start()
    try:
        assert (await alone.until("it answers", alive(1))).complete
        assert not (await looking.until("it answers", alive(1))).complete
        await looking.until("it is complete", lambda roster: roster.complete)
    finally:
        for one in (alone, looking):
            one.end()


async def said_by(program: list[str], environment: dict[str, str]) -> str:
    run = partial(subprocess.run, program, env=environment, capture_output=True, text=True, check=True)
    return str((await asyncio.to_thread(run)).stdout)


async def test_the_command_line_shows_the_nodes(tmp_path: Path) -> None:
    async with two(tmp_path) as (a, _):
        program = [str(Path(sys.executable).parent / "thunderline"), "nodes", "--home", str(a.home)]
        told = {**os.environ, "THUNDERLINE_DISCOVERY_PORT": str(a.port)}
        table = await said_by(program, told)
        assert table.count("ALIVE") == 2
        assert table.count("(this node)") == 1
        tree = json.loads(await said_by([*program, "--json"], told))
        assert tree["complete"] is True
        assert len(tree["members"]) == 2
        # The second has a seed, the first has none: told, and expected.
        assert [one["name"] for one in tree["differences"] if one["expected"]] == ["discovery.seeds"]


async def test_a_mac_tells_of_itself_while_one_of_its_commands_hangs(tmp_path: Path) -> None:
    mac = LittleMac(tmp_path / "mac")
    mac.folder.mkdir()
    mac.prints()
    mac.does("ibv_devinfo", mac.remembering("echo $$ >>$PIDS; sleep 1000"))
    environment = {"PATH": mac.environ["PATH"], "THUNDERLINE_NODE_PLATFORM": "darwin"}
    one = Process(tmp_path / "a", environment=environment)
    one.start()
    try:
        first = (await one.until("it answers", alive(1))).members[0].card
        # Before it can know anything.
        assert first.operating_system.startswith("darwin ")
        assert not first.HasField("machine")
        roster = await one.until("it has looked", lambda roster: roster.members[0].card.HasField("machine"))
        card = roster.members[0].card
        assert (card.machine.model, card.chip) == ("Mac15,14", "Apple M3 Ultra")
        assert [told.what for told in card.machine.warnings if told.command == "ibv_devinfo"] == [
            "took longer than 5 s"
        ]
        assert card.revision > first.revision
        await one.until("the heavy one too", lambda roster: roster.members[0].card.machine.mlx_told)
        assert one.end(signal.SIGTERM) == 0
        await until("nothing of its commands is left", lambda: not mac.living())
    finally:
        if one.running is not None and one.running.poll() is None:
            one.end()


async def test_a_mac_that_is_told_to_stop_takes_its_commands_along(tmp_path: Path) -> None:
    mac = LittleMac(tmp_path / "mac")
    mac.folder.mkdir()
    mac.prints()
    for name in ("ibv_devinfo", "system_profiler", "thunderline"):
        mac.does(name, mac.remembering("trap '' TERM; echo $$ >>$PIDS; sleep 1000"))
    one = Process(tmp_path / "a", environment={"PATH": mac.environ["PATH"], "THUNDERLINE_NODE_PLATFORM": "darwin"})
    one.start()
    try:
        await until("they hang", lambda: len(mac.living()) == 3, WAIT_S)
        assert one.end(signal.SIGTERM) == 0
        assert not mac.living()
    finally:
        if one.running is not None and one.running.poll() is None:
            one.end()
    assert "Traceback" not in one.said
