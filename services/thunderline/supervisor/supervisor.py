"""Starts roles, restarts those that die, and ends them in the order that keeps nobody from starting anew."""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from thunderline.cluster.limits import Limits
from thunderline.cluster.rank_map import decode
from thunderline.process.entry import FAILED, USAGE, CannotStart
from thunderline.supervisor.backoff import Backoff
from thunderline.supervisor.role_process import RoleProcess

# A role that refuses to start says why within this time.
REFUSAL_S = 3.0
# From Ctrl-C: those that would start or send something new first, then the runner, which ends its ranks.
FIRST_STOP_S = 1.5
KILL_AFTER_S = 3.0

log = logging.getLogger(__name__)


@contextlib.contextmanager
def alone(home: Path) -> Iterator[None]:
    """Holds the home for one `up`. Raises CannotStart with the pid of the other."""
    path = home / "run" / "up.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CannotStart(f"{home} is in use by pid {file.read().strip() or 'unknown'}") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


class Supervisor:
    """`first` names the roles that are stopped first, `interrupted` the one that gets SIGINT after them."""

    def __init__(
        self,
        roles: Sequence[RoleProcess],
        limits: Limits,
        rank_maps: Path,
        first: Sequence[str] = ("gateway", "scheduler"),
        interrupted: str = "runner",
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._roles = {role.name: role for role in roles}
        self._limits = limits
        self._rank_maps = rank_maps
        self._first = first
        self._interrupted = interrupted
        self._say = say
        self._stopping = False
        self._hurried = False

    def hurry(self) -> None:
        """No more patience: what is being ended is killed."""
        self._hurried = True

    async def run(self, stop: "asyncio.Future[Any]") -> None:
        """Until `stop` is done; then everything is ended. Raises CannotStart when a role refuses its first start."""
        reading, writing = os.pipe()
        watches: list[asyncio.Task[None]] = []
        try:
            for role in self._roles.values():
                role.start(reading)
            watches = [asyncio.create_task(self._watch(role, reading)) for role in self._roles.values()]
            ends: set[asyncio.Future[Any]] = {stop, *watches}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for watch in watches:
                if watch.done():
                    watch.result()
        finally:
            self._stopping = True
            for watch in watches:
                watch.cancel()
            await self._end()
            os.close(writing)
            os.close(reading)

    async def _watch(self, role: RoleProcess, lifeline: int) -> None:
        limits = self._limits
        backoff = Backoff(limits.restart_wait_min_s, limits.restart_wait_max_s, limits.restart_reset_s)
        first = True
        while not self._stopping:
            begun_s = time.monotonic()
            code = await role.exited()
            lived_s = time.monotonic() - begun_s
            if self._stopping:
                return
            if code == USAGE or (first and code == FAILED and lived_s < REFUSAL_S):
                raise CannotStart(role.last_line().removeprefix(f"thunderline {role.name}: "))
            first = False
            wait_s, backoff = backoff.died(lived_s)
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            self._say(f"{role.name} ended ({how}); it is started again in {wait_s:.1f} s")
            await asyncio.sleep(wait_s)
            role.start(lifeline)

    async def _end(self) -> None:
        """Nothing is left within five seconds."""
        end_s = time.monotonic() + KILL_AFTER_S
        # SIGINT: somebody waits for the prompt.
        await self._stop(
            [self._roles[name] for name in self._first if name in self._roles], signal.SIGINT, FIRST_STOP_S
        )
        for role in self._roles.values():
            if role.name != self._interrupted:
                role.send(signal.SIGTERM)
        runner = self._roles.get(self._interrupted)
        if runner is not None:
            await self._stop([runner], signal.SIGINT, max(0.1, end_s - time.monotonic() - 0.5))
        await self._stop(list(self._roles.values()), signal.SIGTERM, max(0.1, end_s - time.monotonic()))
        await asyncio.to_thread(self._kill_ranks)

    async def _stop(self, roles: Sequence[RoleProcess], number: signal.Signals, wait_s: float) -> None:
        for role in roles:
            role.send(number)
        end_s = time.monotonic() + wait_s
        while any(role.is_alive for role in roles) and time.monotonic() < end_s and not self._hurried:
            await asyncio.sleep(0.02)
        for role in roles:
            role.send(signal.SIGKILL)

    def _kill_ranks(self) -> None:
        """Ranks that outlived their runner: only processes that hold their map and name themselves a rank."""
        for path in self._rank_maps.glob("*.map"):
            with contextlib.suppress(OSError, ValueError, psutil.Error):
                if _is_locked(path) and (mark := decode(path.read_bytes())) is not None:
                    process = psutil.Process(mark.pid)
                    if "rank" in process.cmdline() and abs(process.create_time() - mark.process_start_s) < 1:
                        process.kill()
                        process.wait(1)


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
