"""How a role learns that it should stop: a real process, signalled, and its supervisor's pipe."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from thunderline.process.stopping import LIFELINE

LITTLE = Path(__file__).with_name("little_role.py")


@contextmanager
def running(home: Path, lifeline: int | None = None) -> Iterator["subprocess.Popen[str]"]:
    """A role that waits to be told to stop."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("THUNDERLINE_")}
    process = subprocess.Popen(
        [sys.executable, str(LITTLE), "waits", "--home", str(home)],
        env=ours if lifeline is None else {**ours, LIFELINE: str(lifeline)},
        pass_fds=() if lifeline is None else (lifeline,),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        try:
            os.close(end)
        except OSError:
            # The test closed it.
            continue


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda one: one.name)
def test_a_signal_is_told_by_its_name(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as role:
        role.send_signal(number)
        said, _ = role.communicate(timeout=20)
        assert (said, role.returncode) == (f"{number.name}\n", 0)


def test_a_pipe_that_closes_is_a_sigterm(tmp_path: Path, pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    with running(tmp_path, reading) as role:
        assert role.poll() is None
        os.close(writing)
        said, _ = role.communicate(timeout=20)
        assert (said, role.returncode) == ("SIGTERM\n", 0)


def test_a_pipe_that_is_held_changes_nothing(tmp_path: Path, pipe: tuple[int, int]) -> None:
    reading, _ = pipe
    with running(tmp_path, reading) as role:
        role.send_signal(signal.SIGINT)
        said, _ = role.communicate(timeout=20)
        assert said == "SIGINT\n"
