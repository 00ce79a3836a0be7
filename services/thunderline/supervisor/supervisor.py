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
from thunderline.process import log_files
from thunderline.process.changes import Changes
from thunderline.process.entry import FAILED, USAGE, CannotStart, first
from thunderline.supervisor.backoff import Backoff
from thunderline.supervisor.role_process import RoleProcess

# A role that refuses to start says why within this time; the first start of all at once takes longer on a busy machine.
REFUSAL_S, FIRST_REFUSAL_S = 3.0, 15.0
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


def how_it_ended(name: str, code: int, reason: str) -> str:
    """A sentence without its end. `code` is an exit code, or minus a signal; `reason` its last line, if it had one."""
    if code < 0:
        return f"{name} was ended by {signal.Signals(-code).name}"
    if code in (FAILED, USAGE):
        return f"{name} cannot start: {reason}"
    return f"{name} ended with exit code {code}{reason and ': '}{reason}"


class Supervisor:
    """`stopped_first` names the roles that are stopped first, `interrupted` the one that gets SIGINT after them."""

    def __init__(
        self,
        roles: Sequence[RoleProcess],
        limits: Limits,
        rank_maps: Path,
        stopped_first: Sequence[str] = ("gateway", "scheduler"),
        interrupted: str = "runner",
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._roles = {role.name: role for role in roles}
        self._limits = limits
        self._rank_maps = rank_maps
        self._stopped_first = stopped_first
        self._interrupted = interrupted
        self._say = say
        # Each notification says that some child may have ended.
        self._children = Changes()
        self._hurried = False

    def hurry(self) -> None:
        """No more patience: what is being ended is killed."""
        self._hurried = True

    async def run(self, stop: "asyncio.Future[Any]") -> None:
        """Until `stop` is done; then everything is ended. Raises CannotStart when a role refuses its first start.

        In the main thread: the end of a child comes as SIGCHLD.
        """
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        loop.add_signal_handler(signal.SIGCHLD, self._children.notify)
        try:
            for role in self._roles.values():
                role.start(reading)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._watch(role, reading)) for role in self._roles.values()]
                tasks.append(group.create_task(self._keep_logs_small()))
                await asyncio.wait({stop})
                for task in tasks:
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise first(errors) from None
        finally:
            await self._end()
            loop.remove_signal_handler(signal.SIGCHLD)
            os.close(writing)
            os.close(reading)

    async def _watch(self, role: RoleProcess, lifeline: int) -> None:
        limits = self._limits
        backoff = Backoff(limits.restart_wait_min_s, limits.restart_wait_max_s, limits.restart_reset_s)
        begun_s, is_first, told = time.monotonic(), True, ""
        while True:
            if told and await self._lives_on(role):
                told = ""
                self._say(f"{role.name} runs again")
            code = await self._exited(role)
            lived_s = time.monotonic() - begun_s
            reason = role.last_line() if code > 0 else ""
            if is_first and (code == USAGE or (code == FAILED and lived_s < FIRST_REFUSAL_S)):
                raise CannotStart(reason)
            is_first = False
            wait_s, backoff = backoff.died(lived_s)
            # The same end again and again is said once.
            if (ending := how_it_ended(role.name, code, reason)) != told:
                told = ending
                self._say(f"{ending}; it is started again in {wait_s:.1f} s and, if need be, again and again")
            await asyncio.sleep(wait_s)
            begun_s = time.monotonic()
            try:
                role.start(lifeline)
            except OSError as error:
                # The next round finds it ended as before, and waits longer.
                self._say(f"{role.name} cannot be started: {error}")

    async def _exited(self, role: RoleProcess) -> int:
        """Waits for its end: the exit code, or minus the signal."""
        while True:
            seen = self._children.version
            if (code := role.code()) is not None:
                return code
            await self._children.after(seen)

    async def _lives_on(self, role: RoleProcess) -> bool:
        """Whether it is past the time in which a role refuses to start."""
        try:
            async with asyncio.timeout(REFUSAL_S):
                await self._exited(role)
        except TimeoutError:
            return True
        return False

    async def _keep_logs_small(self) -> None:
        while True:
            for role in self._roles.values():
                await asyncio.to_thread(role.keep_log_small)
            await asyncio.sleep(log_files.LOOK_EVERY_S)

    async def _end(self) -> None:
        """Nothing is left within five seconds."""
        end_s = time.monotonic() + KILL_AFTER_S
        # SIGINT: somebody waits for the prompt.
        await self._stop(
            [self._roles[name] for name in self._stopped_first if name in self._roles], signal.SIGINT, FIRST_STOP_S
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
