"""One role's process, from start to end; its log; the pipe that ties its life to ours."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from thunderline.process.stopping import LIFELINE

LOG_BYTES_MAX = 10 * 1024 * 1024


class RoleProcess:
    """`name` is for people, `command` is exec'd. Blocking calls here take microseconds, but for `start` (a fork)."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self._command = list(command)
        self._log = log
        self._environment = environment
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, lifeline: int) -> None:
        """In a session of its own; it ends when the other end of `lifeline` is closed. Raises OSError."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES_MAX:
            self._log.replace(self._log.with_suffix(".log.1"))
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=(lifeline,),
                env={**self._environment, LIFELINE: str(lifeline)},
            )

    async def exited(self) -> int:
        """Waits for the end; the exit code, or minus the signal."""
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait)

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def last_line(self) -> str:
        """The last thing that it logged: why it could not start."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""
