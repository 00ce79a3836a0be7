"""A thunderline started as a user starts it, with its own home and ports, for tests."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai
import psutil

BIN = Path(sys.executable).parent
ROLES = ("discovery", "topology", "scheduler", "runner", "gateway")
GRPC_ROLES = {"discovery": 1, "topology": 2, "scheduler": 3, "runner": 4}
OTHER_PORTS = {"SCHEDULER_ENROLLMENT_PORT": 5, "TOPOLOGY_ECHO_PORT": 6}
DEMO = "smollm2-135m-instruct"

T = TypeVar("T")


def until(what: str, look: Callable[[], T | None], timeout_s: float, every_s: float = 0.05) -> T:
    """The first true value of `look`. Fails after the timeout with what was waited for."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := look():
            return found
        threading.Event().wait(every_s)
    raise AssertionError(f"not within {timeout_s} s: {what}")


def free_base_port() -> int:
    """A base such that base + 0..6 and base + 101..104 are free, below the ephemeral range."""
    for base in range(20000 + os.getpid() % 400 * 10, 30000, 200):
        if all(is_free(base + offset) for offset in (*range(7), *range(101, 105))):
            return base
    raise AssertionError("no free ports between 20000 and 30000")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


@dataclass
class Installation:
    """One `thunderline up`: HTTP at `base_port`, gRPC roles at base_port + 1 ... 4, enrolment and echo after them."""

    home: Path
    base_port: int = field(default_factory=free_base_port)
    environment: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None
    bin: Path = BIN

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.base_port}"

    def target(self, role: str) -> str:
        return f"127.0.0.1:{self.base_port + GRPC_ROLES[role]}"

    def command(self, *arguments: str) -> list[str]:
        return [str(self.bin / "thunderline"), *arguments]

    def variables(self) -> dict[str, str]:
        ports = {f"THUNDERLINE_{role.upper()}_PORT": str(self.base_port + n) for role, n in GRPC_ROLES.items()}
        ports |= {f"THUNDERLINE_{name}": str(self.base_port + n) for name, n in OTHER_PORTS.items()}
        ports["THUNDERLINE_GATEWAY_PORT"] = str(self.base_port)
        ours = {key: value for key, value in os.environ.items() if not key.startswith("THUNDERLINE_")}
        return {**ours, "THUNDERLINE_HOME": str(self.home), **ports, **self.environment}

    def run(self, *arguments: str, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
        """One command of the command line, with this installation's home and ports."""
        return subprocess.run(
            self.command(*arguments),
            env=self.variables(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def start(self, *arguments: str) -> None:
        """`thunderline up` in a session of its own, as a terminal would have it."""
        self.process = subprocess.Popen(
            self.command("up", *arguments),
            env=self.variables(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_ready(self, timeout_s: float = 240) -> None:
        assert self.process is not None
        process = self.process

        def ready() -> bool:
            assert process.poll() is None, f"up ended with {process.returncode}:\n{self.output}"
            return any(line.startswith("ready: ") for line in self.lines)

        until(f"ready: in the output of up:\n{self.output}", ready, timeout_s, every_s=0.2)

    def interrupt(self, timeout_s: float = 5) -> float:
        """Ctrl-C; the seconds until `up` was gone. Fails after the timeout."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout_s)
        return time.monotonic() - begun

    def processes(self) -> dict[int, str]:
        """Every living process of this home: pid to role name, "rank" and "up" among them."""
        found = {}
        if self.process is not None and self.process.poll() is None:
            found[self.process.pid] = "up"
        for process in psutil.process_iter(["pid", "cmdline", "status"]):
            line = " ".join(process.info["cmdline"] or [])
            if str(self.home) not in line or process.info["status"] == psutil.STATUS_ZOMBIE:
                continue
            if match := re.search(r"/thunderline (\w+)", line):
                found[process.info["pid"]] = match[1]
        return found

    def pid(self, role: str, other_than: int = 0, timeout_s: float = 10) -> int:
        """The pid of a role's living process."""
        return until(
            f"a process of {role}",
            lambda: next((pid for pid, name in self.processes().items() if name == role and pid != other_than), None),
            timeout_s,
        )

    def openai(self, timeout_s: float = 120) -> openai.OpenAI:
        """The official client. It does not retry: tests see every error."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=timeout_s)

    def deployments(self) -> list[dict[str, Any]]:
        answer = self.run("deployments", "--json", timeout_s=20)
        assert answer.returncode == 0, answer.stderr
        return list(json.loads(answer.stdout).get("deployments", []))

    def answers(self, model: str = DEMO) -> bool:
        """Whether a good request is answered now."""
        body = {"model": model, "messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 3, "temperature": 0}
        try:
            answer = httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=60)
        except httpx.TransportError:
            return False
        return answer.status_code == 200


@contextmanager
def installed(home: Path, *arguments: str, **environment: str) -> Iterator[Installation]:
    """Starts `up`, waits until it is ready, and ends it; fails when a process is left."""
    installation = Installation(home, environment=environment)
    installation.start(*arguments)
    try:
        installation.wait_ready()
        yield installation
    finally:
        end(installation)


def end(installation: Installation) -> None:
    """Ends everything of an installation, whatever state it is in."""
    process = installation.process
    if process is not None and process.poll() is None:
        try:
            installation.interrupt(timeout_s=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
    for pid in installation.processes():
        psutil.Process(pid).kill()
