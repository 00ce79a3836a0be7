"""One role's process, from start to end; its log; the pipe that ties its life to ours."""

import contextlib
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from thunderline.process import log_files
from thunderline.process.stopping import LIFELINE

LAST_BYTES = 4096


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

    def code(self) -> int | None:
        """The exit code, or minus the signal; None while it lives."""
        assert self.process is not None
        return self.process.poll()

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.code() is None

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def keep_log_small(self) -> None:
        log_files.keep_small(self._log)

    def last_line(self) -> str:
        """The last thing that it logged: why it could not start."""
        lines = log_files.tail(self._log, LAST_BYTES).strip().splitlines()
        return lines[-1].removeprefix(f"thunderline {self.name}: ") if lines else ""
