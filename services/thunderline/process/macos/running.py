"""Runs one command of the system: it ends when its time is over, and so does whatever it has started.

Of asyncio's Process `wait` returns only when nobody holds its pipes any more, which a child that was left behind may do
for ever; so this speaks with the transport itself.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from thunderline.process.macos.looking import program
from thunderline.process.macos.outputs import MISSING, Output, name, took_longer
from thunderline.process.stopping import LIFELINE

# The Thunderbolt tree of a Mac with a chain of docks has 50 kB.
PRINTED_BYTES_MAX = 1024 * 1024
# Who has ended has said all that it had to say; what it printed is read within this.
LAST_WORDS_S = 0.5
# What is killed is gone at once, unless it hangs in the kernel, as ibv_devinfo is known to do.
GONE_S = 1.0
# Answers in English, and numbers with points.
LANGUAGE = {"LANG": "C", "LC_ALL": "C"}

# Its name, PATH and the time that there is to the command's file; see looking.py.
Find = Callable[[str, str | None, float], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Ran:
    """`gone` is done when the process is: what was killed in vain may stay for ever."""

    output: Output
    gone: "asyncio.Future[None]"
    is_hung: bool = False


class _Child(asyncio.SubprocessProtocol):
    """What a process prints, and how far it is. Belongs to the running loop."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        # It has exited, and nobody holds its pipes any more.
        self.silent: asyncio.Future[None] = loop.create_future()
        self.flooded: asyncio.Future[None] = loop.create_future()
        self.printed = {1: bytearray(), 2: bytearray()}

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        printed = self.printed[fd]
        printed += data[: PRINTED_BYTES_MAX + 1 - len(printed)]
        if len(printed) > PRINTED_BYTES_MAX:
            _settle(self.flooded)

    def process_exited(self) -> None:
        _settle(self.exited)

    def connection_lost(self, exc: Exception | None) -> None:
        _settle(self.silent)

    async def ends(self, timeout_s: float) -> bool:
        """Whether it has ended, by itself or by what it printed, within its time."""
        first = asyncio.FIRST_COMPLETED
        ended, _ = await asyncio.wait({self.exited, self.flooded}, timeout=timeout_s, return_when=first)
        if self.exited in ended and self.flooded not in ended:
            await asyncio.wait({self.silent, self.flooded}, timeout=LAST_WORDS_S, return_when=first)
        return bool(ended)

    def output(self, code: int) -> Output:
        """Of one that has ended; `code` is minus the signal that ended it."""
        if self.flooded.done():
            return Output(problem=f"printed more than {PRINTED_BYTES_MAX // 1024**2} MiB")
        text, complaint = (bytes(one).decode(errors="replace") for one in self.printed.values())
        # sysctl fails for one unknown name, and prints the others. Who was ended has not printed all.
        if text.strip() and code >= 0:
            return Output(text)
        how = "printed nothing" if code == 0 else f"ended with {code}" if code > 0 else f"was ended by {_signal(-code)}"
        why = name(next((line for line in complaint.splitlines() if line.strip()), ""))
        return Output(problem=f"{how}: {why}" if why else how)


async def ran(
    words: Sequence[str], timeout_s: float, environ: Mapping[str, str] | None = None, find: Find = program
) -> Ran:
    """The first word is looked for in PATH each time: what is installed later is found. That and the command have
    `timeout_s` together. Raises nothing that the command brings about. Cancelled, it ends the command first."""
    environ = os.environ if environ is None else environ
    clock = asyncio.get_running_loop().time
    ends_s = clock() + timeout_s
    late = Output(problem=took_longer(timeout_s))
    try:
        file = await find(words[0], environ.get("PATH"), timeout_s)
    except TimeoutError:
        return Ran(late, _settled(), is_hung=True)
    if file is None:
        return Ran(Output(problem=MISSING), _settled())
    if clock() >= ends_s:
        return Ran(late, _settled(), is_hung=True)
    try:
        # Ours among the commands end with us however we end: see process/tethered.py.
        reading, writing = os.pipe()
    except OSError as error:
        return Ran(_unstarted(error), _settled())
    try:
        try:
            transport, child = await _started(file, words[1:], reading, environ)
        except OSError as error:
            return Ran(_unstarted(error), _settled())
        finally:
            os.close(reading)
        try:
            if not await child.ends(ends_s - clock()):
                return Ran(late, child.exited, is_hung=True)
            return Ran(child.output(transport.get_returncode() or 0), child.exited)
        finally:
            await _end(transport, child)
    finally:
        os.close(writing)


async def _started(
    file: str, arguments: Sequence[str], lifeline: int, environ: Mapping[str, str]
) -> tuple[asyncio.SubprocessTransport, _Child]:
    """Raises OSError."""
    starting = asyncio.ensure_future(
        asyncio.get_running_loop().subprocess_exec(
            _Child,
            file,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            pass_fds=(lifeline,),
            env={**environ, **LANGUAGE, LIFELINE: str(lifeline)},
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # Cancelled itself it would kill the process alone, and wait for those who hold its pipes.
        with contextlib.suppress(OSError):
            await _end(*await starting)
        raise


async def _end(transport: asyncio.SubprocessTransport, child: _Child) -> None:
    """Nothing of it is left after this, but for what hangs in the kernel."""
    if not child.silent.done():
        # A group with nobody in it but the dead is refused on macOS.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
        await asyncio.wait({child.exited}, timeout=GONE_S)
    if not child.exited.done():
        child.exited.add_done_callback(lambda _: transport.close())
        return
    transport.close()
    # The pipes are closed in the loop's next turns.
    await asyncio.wait({child.silent}, timeout=GONE_S)


def _unstarted(error: OSError) -> Output:
    return Output(problem=f"cannot be started: {error.strerror or error}")


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _settled() -> "asyncio.Future[None]":
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
