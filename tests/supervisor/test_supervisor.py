"""The supervisor with small roles of its own: what it restarts, what it says, what it leaves."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from thunderline.cluster.limits import Limits
from thunderline.process.entry import CannotStart
from thunderline.supervisor.role_process import RoleProcess
from thunderline.supervisor.supervisor import Supervisor

WAIT_S = 20.0
LIVES = "import time; time.sleep(600)"
# Each life of it does what its number says; `n` is the number of this life.
COUNTS = """
import pathlib, sys, time
count = pathlib.Path({count!r})
n = len(count.read_text()) if count.exists() else 0
count.write_text("x" * (n + 1))
def end(code, text):
    print("thunderline little: " + text, file=sys.stderr)
    sys.exit(code)
"""


@dataclass
class House:
    folder: Path
    said: list[str] = field(default_factory=list)

    def role(self, name: str, text: str) -> RoleProcess:
        return RoleProcess(name, [sys.executable, "-c", text], self.folder / f"{name}.log", os.environ)

    @property
    def lives(self) -> int:
        count = self.folder / "count"
        return len(count.read_text()) if count.exists() else 0

    def counting(self, text: str) -> RoleProcess:
        return self.role("little", COUNTS.format(count=str(self.folder / "count")) + text)

    def supervisor(self, *roles: RoleProcess) -> Supervisor:
        limits = Limits(restart_wait_min_s=0.02, restart_wait_max_s=0.05)
        return Supervisor(roles, limits, self.folder / "maps", say=self.said.append)

    async def until(self, what: str, look: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                while not look():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not within {WAIT_S} s: {what}; said: {self.said}") from None

    @asynccontextmanager
    async def running(self, *roles: RoleProcess) -> AsyncIterator[None]:
        """Until the block ends; then every role has ended."""
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        run = asyncio.create_task(self.supervisor(*roles).run(stop))
        try:
            await self.until("a start", lambda: run.done() or all(role.process is not None for role in roles))
            yield
            assert not run.done()
        finally:
            stop.cancel() if run.done() else stop.set_result(None)
            await run
        assert not any(role.is_alive for role in roles)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.mark.parametrize("code", [1, 2])
async def test_a_role_that_refuses_its_first_start_ends_everything_with_its_reason(house: House, code: int) -> None:
    other = house.role("other", LIVES)
    refusing = house.counting(f"end({code}, 'the port is taken')")
    with pytest.raises(CannotStart, match=r"^the port is taken$"):
        await house.supervisor(other, refusing).run(asyncio.get_running_loop().create_future())
    assert not other.is_alive


async def test_a_role_that_refuses_a_later_start_says_why_once_and_is_tried_until_it_runs(house: House) -> None:
    role = house.counting(
        "if n == 0: end(70, 'KeyError: 3')\n"
        "if n < 4: end(1, 'the port is taken')\n"
        "if n < 7: end(2, 'an unknown key')\n"
        "time.sleep(600)"
    )
    async with house.running(role):
        await house.until("it runs again", lambda: bool(house.said) and house.said[-1].endswith("runs again"))
    assert house.lives == 8
    assert [line.partition(";")[0] for line in house.said] == [
        "little ended with exit code 70: KeyError: 3",
        "little cannot start: the port is taken",
        "little cannot start: an unknown key",
        "little runs again",
    ]


async def test_a_killed_role_is_started_again_at_once_and_no_thread_waits_for_it(house: House) -> None:
    roles = [house.role(name, LIVES) for name in ("a", "b", "c", "d")]
    async with house.running(*roles):
        first = roles[0].process
        assert first is not None
        first.send_signal(signal.SIGKILL)
        await house.until("another process", lambda: roles[0].process is not first and roles[0].is_alive)
        assert house.said[0].startswith("a was ended by SIGKILL;")
        waiting = [thread.name for thread in threading.enumerate() if thread.name.startswith("asyncio")]
        # The logs are looked at in one or two.
        assert len(waiting) < len(roles)


async def test_a_role_that_writes_without_end_has_a_small_log(house: House) -> None:
    flood = "import sys, time; sys.stderr.write('a line of it\\n' * 500_000); sys.stderr.flush(); time.sleep(600)"
    log = house.folder / "loud.log"
    async with house.running(house.role("loud", flood)):
        await house.until("a flood moved aside", lambda: (house.folder / "loud.log.1").exists())
        await house.until("an emptied log", lambda: log.stat().st_size < 4 * 1024 * 1024)
    assert (house.folder / "loud.log.1").stat().st_size <= 4 * 1024 * 1024
