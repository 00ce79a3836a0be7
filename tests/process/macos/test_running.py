"""One command, whatever it does: real processes, scripts that a test writes."""

import asyncio
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from discovery.little_discovery import until
from process.macos.little_mac import HANGS_AFTER_S, LittleMac
from thunderline.process.macos.outputs import MISSING, Output
from thunderline.process.macos.running import GONE_S, LAST_WORDS_S, PRINTED_BYTES_MAX, Ran, ran

# Who answers has more time than the busiest machine needs.
ANSWERS_S = 60.0
# Of an interval that a machine that does other things too may take longer for.
SLACK_S = 10.0
HUNG = f"took longer than {HANGS_AFTER_S:g} s"
FLOODED = "printed more than 1 MiB"


async def run(mac: LittleMac, script: str, timeout_s: float = ANSWERS_S) -> Ran:
    mac.does("little", script)
    return await ran(["little", "one", "two"], timeout_s, mac.environ)


@dataclass(frozen=True)
class Answer:
    script: str
    output: Output
    timeout_s: float = ANSWERS_S


ANSWERS: dict[str, Answer] = {
    "what it prints": Answer("echo hello", Output("hello\n")),
    "its words": Answer('echo "$1+$2"', Output("one+two\n")),
    "what it prints, though it fails": Answer("echo half; echo unknown >&2; exit 1", Output("half\n")),
    "not what it says beside that": Answer("echo why >&2; echo hello", Output("hello\n")),
    "nothing": Answer("", Output(problem="printed nothing")),
    "nothing but white space": Answer("echo; echo ' '", Output(problem="printed nothing")),
    "nothing, and why": Answer("echo nobody home >&2", Output(problem="printed nothing: nobody home")),
    "a failure": Answer("exit 3", Output(problem="ended with 3")),
    "a failure, and why, in one line": Answer(
        "echo >&2; printf 'no\\tsuch thing\\nmore\\n' >&2; exit 3", Output(problem="ended with 3: no such thing")
    ),
    "half of what it would print": Answer("echo half; kill -9 $$", Output(problem="was ended by SIGKILL")),
    "text in no encoding that is known": Answer("printf 'a\\377b\\n'", Output("a\N{REPLACEMENT CHARACTER}b\n")),
    "text in English, whatever its user reads": Answer("echo $LANG $LC_ALL", Output("C C\n")),
    "nothing that it could read": Answer("cat; echo end", Output("end\n")),
    "as much as it may print": Answer(
        f"head -c {PRINTED_BYTES_MAX} /dev/zero | tr '\\0' x", Output("x" * PRINTED_BYTES_MAX)
    ),
    "ten megabytes": Answer("head -c 10000000 /dev/zero | tr '\\0' x", Output(problem=FLOODED)),
    "text without end": Answer("yes", Output(problem=FLOODED)),
    "complaints without end": Answer("yes >&2", Output(problem=FLOODED)),
    "nothing, for ever": Answer("sleep 1000", Output(problem=HUNG), HANGS_AFTER_S),
    "nothing for ever, and it will not be told": Answer(
        "trap '' TERM INT HUP; while true; do sleep 1000; done", Output(problem=HUNG), HANGS_AFTER_S
    ),
    "something, and then nothing for ever": Answer("echo hello; sleep 1000", Output(problem=HUNG), HANGS_AFTER_S),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
async def test_it_prints(tmp_path: Path, answer: Answer) -> None:
    found = await run(LittleMac(tmp_path), answer.script, answer.timeout_s)
    assert found.output == answer.output
    assert found.is_hung == (answer.output.problem == HUNG)
    assert found.gone.done()


async def test_one_that_is_missing_is_found_when_it_is_there(tmp_path: Path) -> None:
    mac = LittleMac(tmp_path)
    assert (await ran(["little"], ANSWERS_S, mac.environ)).output == Output(problem=MISSING)
    mac.does("little", "echo here")
    assert (await ran(["little"], ANSWERS_S, mac.environ)).output == Output("here\n")


async def test_where_a_folder_of_path_hangs_it_counts_as_one_that_hangs(tmp_path: Path) -> None:
    async def find(name: str, path: str | None, timeout_s: float) -> str | None:
        async with asyncio.timeout(timeout_s):
            await asyncio.Event().wait()
        return None

    found = await ran(["little"], 0.1, LittleMac(tmp_path).environ, find)
    assert (found.output, found.is_hung, found.gone.done()) == (Output(problem="took longer than 0.1 s"), True, True)


async def test_what_it_takes_to_find_it_is_taken_from_its_time(tmp_path: Path) -> None:
    mac = LittleMac(tmp_path)
    mac.does("little", "echo hello")

    async def find(name: str, path: str | None, timeout_s: float) -> str | None:
        # All of it; a timer may be early by its resolution.
        await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=timeout_s + 0.1)
        return str(tmp_path / name)

    assert (await ran(["little"], 0.2, mac.environ, find)).output == Output(problem="took longer than 0.2 s")


async def test_a_file_that_nobody_may_run_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "little").write_text("#!/bin/sh\n")
    assert (await ran(["little"], ANSWERS_S, LittleMac(tmp_path).environ)).output.problem == MISSING


async def test_a_file_that_is_no_program_cannot_be_started(tmp_path: Path) -> None:
    (tmp_path / "little").write_bytes(b"\x00\x01\x02")
    (tmp_path / "little").chmod(0o755)
    found = await ran(["little"], ANSWERS_S, LittleMac(tmp_path).environ)
    assert found.output.problem.startswith("cannot be started: ")
    assert found.gone.done()


# What a command leaves behind: whether it is ended with it. One in a session of its own cannot be known of.
LEFT: dict[str, tuple[str, bool]] = {
    "a child that holds its pipe": ("sleep 1000 &", True),
    "a child that will not be told": ("(trap '' TERM HUP; sleep 1000) &", True),
    "a child that prints without end": ("yes &", True),
    "a child in a session of its own": (
        f"{shlex.quote(sys.executable)} -c 'import subprocess; "
        'subprocess.Popen(["sleep", "20"], start_new_session=True)\'',
        False,
    ),
}


@pytest.mark.parametrize(("script", "is_ended"), LEFT.values(), ids=LEFT.keys())
async def test_what_it_leaves_behind_keeps_nobody_waiting(tmp_path: Path, script: str, is_ended: bool) -> None:
    mac = LittleMac(tmp_path)
    loop = asyncio.get_running_loop()
    begun_s, before = loop.time(), psutil.Process().num_fds()
    found = await run(mac, mac.remembering(f"echo hello; {script}\necho $! >>$PIDS"))
    assert loop.time() - begun_s < LAST_WORDS_S + GONE_S + SLACK_S
    assert found.output == (Output(problem=FLOODED) if "yes" in script else Output("hello\n"))
    if is_ended:
        await until("it is ended", lambda: not mac.living())
    assert psutil.Process().num_fds() <= before + 1


async def test_of_what_hangs_nothing_is_left(tmp_path: Path) -> None:
    mac = LittleMac(tmp_path)
    script = "echo $$ >>$PIDS; (trap '' TERM; echo $$ >>$PIDS; sleep 1000) & echo $! >>$PIDS; wait"
    before = psutil.Process().num_fds()
    found = await run(mac, mac.remembering(script), HANGS_AFTER_S)
    assert found.is_hung
    assert len(mac.pids()) == 3
    await until("all of it is gone", lambda: not mac.living())
    assert psutil.Process().num_fds() <= before + 1


async def test_who_is_cancelled_ends_it_first(tmp_path: Path) -> None:
    mac = LittleMac(tmp_path)
    running = asyncio.create_task(run(mac, mac.remembering("echo $$ >>$PIDS; sleep 1000")))
    await until("it runs", lambda: running.done() or bool(mac.pids()))
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    assert not mac.living()


@pytest.mark.parametrize("turns", range(30))
async def test_who_is_cancelled_while_it_is_started_ends_it_too(tmp_path: Path, turns: int) -> None:
    """After so many turns of the loop; a child has its pipes by then, or not yet."""
    mac = LittleMac(tmp_path)
    mac.does("little", mac.remembering("trap '' TERM; echo $$ >>$PIDS; sleep 1000"))
    running = asyncio.create_task(ran(["little"], ANSWERS_S, mac.environ))
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=SLACK_S)
    assert done
    assert running.cancelled()
    assert not mac.living()


async def test_many_that_hang_hang_side_by_side(tmp_path: Path) -> None:
    mac = LittleMac(tmp_path)
    mac.does("little", "sleep 1000")
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    every = await asyncio.gather(*(ran(["little"], HANGS_AFTER_S, mac.environ) for _ in range(12)))
    assert all(one.is_hung for one in every)
    assert loop.time() - begun_s < 12 * HANGS_AFTER_S / 2


async def test_the_loop_goes_on_whatever_is_printed(tmp_path: Path) -> None:
    mac, looks = LittleMac(tmp_path), 0
    running = asyncio.create_task(run(mac, "yes & yes >&2 & sleep 1000", ANSWERS_S))
    while not running.done():
        looks += 1
        await asyncio.sleep(0)
    assert running.result().output.problem == FLOODED
    assert looks > 10


async def test_ours_among_them_end_with_us(tmp_path: Path) -> None:
    """As process/tethered.py has it: the pipe's other end is ours."""
    mac = LittleMac(tmp_path)
    found = await run(mac, 'test -p "/dev/fd/$THUNDERLINE_LIFELINE_FD" && echo tied')
    assert found.output == Output("tied\n")


def in_a_thread(mac: LittleMac) -> Output:
    return asyncio.run(ran(["little"], ANSWERS_S, mac.environ)).output


@pytest.mark.parametrize("count", [1, 8], ids=["one", "eight"])
async def test_threads_with_loops_of_their_own_run_commands_too(tmp_path: Path, count: int) -> None:
    mac = LittleMac(tmp_path)
    mac.does("little", "echo hello")
    found = await asyncio.gather(*(asyncio.to_thread(in_a_thread, mac) for _ in range(count)))
    assert found == [Output("hello\n")] * count
