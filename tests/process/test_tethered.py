"""kill -9 of a parent: its child ends too, whatever it waits for; and what else the block of a child promises."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from installation import until
from thunderline.process import tethered

PARENT = Path(__file__).with_name("little_parent.py")


@pytest.fixture
def silence() -> Iterator[str]:
    """The address of somebody who listens and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["download", "audit", "demo download", "conversion"])
def test_a_killed_parent_takes_its_child_along(tmp_path: Path, silence: str, kind: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, str(PARENT), kind, str(tmp_path), silence], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    children: list[psutil.Process] = []
    try:
        children = until(f"a child ({kind})", lambda: psutil.Process(parent.pid).children(recursive=True), 20)
        # It has begun its work: the interpreter alone maps less.
        until("its work", lambda: children[0].num_threads() > 1, 20)
        parent.kill()
        parent.communicate(timeout=10)
        _, alive = psutil.wait_procs(children, 5)
        assert not alive
    finally:
        parent.kill()
        parent.communicate(timeout=10)
        for child in children:
            if child.is_running():
                child.kill()


async def test_leaving_the_block_ends_the_child() -> None:
    async with tethered.child(tethered.command("http.server", "0"), asyncio.subprocess.DEVNULL) as child:
        assert psutil.pid_exists(child.pid)
    assert child.returncode == -9


async def test_a_child_is_the_module_with_its_arguments() -> None:
    command = tethered.command("base64", "-t")
    async with tethered.child(command, asyncio.subprocess.STDOUT) as child:
        out, _ = await child.communicate()
    assert (b"Aladdin" in out, child.returncode) == (True, 0)


async def test_a_child_that_cannot_be_started_leaves_no_descriptor() -> None:
    before = psutil.Process().num_fds()
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            async with tethered.child(["/nowhere/at/all"], asyncio.subprocess.DEVNULL):
                raise AssertionError("it has started")
    assert psutil.Process().num_fds() <= before + 2
