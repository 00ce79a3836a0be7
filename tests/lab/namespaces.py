"""Network namespaces by `ip`: made, entered by a thread, looked into, and removed with all that lives in them."""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

NAMED = Path("/var/run/netns")
CLONE_NEWNET = 0x40000000
COMMAND_S = 20
# Killed processes are gone within this.
GONE_S = 5.0
# Who made it: pid and start time in ticks; then which lab of that process, and which host.
NAME = re.compile(r"tl-(\d+)-(\d+)-(\d+)-[a-z0-9]+")


class LabError(Exception):
    """The lab cannot do what it was asked for; the message has the command and what it said."""


def ip(*words: str, namespace: str = "", tool: str = "ip") -> str:
    """One command of iproute2, in a namespace. Raises LabError."""
    command = [tool, *(("-n", namespace) if namespace else ()), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def prefix(count: int) -> str:
    """Of the names of a lab of this process; no other process has the same."""
    return f"tl-{os.getpid()}-{_started(os.getpid())}-{count}"


def _started(pid: int) -> int:
    """In ticks since the machine's start, which no clock can change. Raises OSError for nobody."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def make(name: str, ipv6: bool = False) -> None:
    """A namespace with loopback up, that forwards nothing and takes what arrives on whichever interface."""
    ip("netns", "add", name)
    with inside(name):
        for kind in ("all", "default"):
            Path(f"/proc/sys/net/ipv4/conf/{kind}/rp_filter").write_text("0")
            if not ipv6:
                with contextlib.suppress(FileNotFoundError):
                    Path(f"/proc/sys/net/ipv6/conf/{kind}/disable_ipv6").write_text("1")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    ip("link", "set", "lo", "up", namespace=name)


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """This thread, for the time of the block; sockets made in it stay there."""
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(NAMED / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
            try:
                yield
            finally:
                _enter(outside)
        finally:
            os.close(there)
    finally:
        os.close(outside)


def _enter(descriptor: int) -> None:
    # os.setns comes with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def exists(name: str) -> bool:
    return (NAMED / name).exists()


def is_in(name: str, pid: int) -> bool:
    """Whether a process lives there: one that was just started may not have arrived."""
    try:
        return (NAMED / name).stat().st_ino == Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return False


def pids(name: str) -> list[int]:
    """Who lives there."""
    return [int(pid) for pid in ip("netns", "pids", name).split() if int(pid) != os.getpid()]


def remove(name: str) -> None:
    """With SIGKILL for whoever lives there: all of them are the lab's. Raises LabError."""
    end_s = time.monotonic() + GONE_S
    while left := pids(name):
        if time.monotonic() > end_s:
            raise LabError(f"{name}: processes that do not die: {left}")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    ip("netns", "del", name)


def sweep() -> None:
    """Removes what labs left behind whose process is gone. Another lab may be doing the same."""
    for path in NAMED.iterdir() if NAMED.is_dir() else ():
        if (match := NAME.fullmatch(path.name)) and not _lives(int(match[1]), int(match[2])):
            with contextlib.suppress(LabError):
                remove(path.name)


def _lives(pid: int, started: int) -> bool:
    try:
        return _started(pid) == started
    except OSError:
        return False
