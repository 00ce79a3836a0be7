"""Fetching a model: really through huggingface_hub, from a hub on loopback, or from one that does not answer."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.little_hub import MODEL, hub
from runner.little_model import make
from thunderline.cluster.errors import Full, HubUnreachable, InternalError, NotFound
from thunderline.runner import fetch
from thunderline.runner.fetch import Progress


def from_hub(address: str) -> Callable[[str, Path], list[str]]:
    return lambda model, folder: ["env", f"HF_ENDPOINT={address}", "HF_HUB_OFFLINE=0", *fetch.command(model, folder)]


def script(text: str) -> Callable[[str, Path], list[str]]:
    return lambda model, folder: [sys.executable, "-c", text, model, str(folder)]


async def steps_of(folder: Path, command: Callable[[str, Path], list[str]], model: str = MODEL) -> list[Progress]:
    return [step async for step in fetch.fetch(model, folder, command, stall_s=60)]


async def test_a_model_is_fetched_whole_and_without_what_runs(tmp_path: Path) -> None:
    origin = make(tmp_path / "origin")
    (origin / "modeling_little.py").write_text("raise SystemExit")
    (origin / "pytorch_model.bin").write_bytes(b"pickle")
    wanted = {path.name for path in origin.iterdir()} - {"modeling_little.py", "pytorch_model.bin"}
    folder = tmp_path / "models" / "org--little"
    with hub(origin) as address:
        steps = await steps_of(folder, from_hub(address))
    assert {path.name for path in folder.iterdir()} == wanted
    assert all((folder / name).read_bytes() == (origin / name).read_bytes() for name in wanted)
    total = sum((origin / name).stat().st_size for name in wanted)
    assert steps[-1] == Progress(total, total, done=True)
    assert not any(step.done for step in steps[:-1])
    assert [path.name for path in folder.parent.iterdir()] == ["org--little"], "nothing unfinished is left"


async def test_a_model_that_the_hub_does_not_have_is_not_found(tmp_path: Path) -> None:
    with hub(make(tmp_path / "origin")) as address, pytest.raises(NotFound, match="org/other"):
        await steps_of(tmp_path / "models" / "org--other", from_hub(address), "org/other")
    assert not (tmp_path / "models" / "org--other").exists()


async def test_a_hub_that_does_not_answer_is_unreachable_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(HubUnreachable, match="deploy a folder"):
        await steps_of(tmp_path / "models" / "org--little", from_hub("http://127.0.0.1:9"))


CHILDREN: dict[str, tuple[str, type[Exception]]] = {
    "dies_without_a_word": ("import os; os.kill(os.getpid(), 9)", InternalError),
    "has_a_full_disk": ("""print('{"error": "other", "message": "No space left on device"}')""", InternalError),
    "prints_nonsense": ("print('hello')", InternalError),
}


@pytest.mark.parametrize("case", CHILDREN)
async def test_a_download_that_fails_leaves_nothing_that_looks_finished(tmp_path: Path, case: str) -> None:
    text, error = CHILDREN[case]
    folder = tmp_path / "models" / "org--little"
    with pytest.raises(error, match=MODEL):
        await steps_of(folder, script(text))
    assert not folder.exists()


async def test_a_download_without_a_byte_is_given_up(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "org--little"
    command = script("import time; time.sleep(60)")
    with pytest.raises(HubUnreachable, match="no byte"):
        _ = [step async for step in fetch.fetch(MODEL, folder, command, stall_s=0.2)]


async def test_leaving_the_loop_ends_the_download(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "org--little"
    text = "import os, sys, time; print(os.getpid(), file=open(sys.argv[2] + '/pid', 'w')); print('{}'); "
    text += "sys.stdout.flush(); time.sleep(60)"
    steps = fetch.fetch(MODEL, folder, script(text))
    await anext(steps)
    await steps.aclose()
    pid = int((folder.with_name(".org--little.partial") / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_second_download_of_the_same_model_is_refused_while_the_first_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "org--little"
    first = fetch.fetch(MODEL, folder, script("import time; print('{}', flush=True); time.sleep(60)"))
    await anext(first)
    with pytest.raises(Full, match="being fetched already"):
        await steps_of(folder, script("print(1)"))
    await first.aclose()
    with pytest.raises(InternalError):
        await steps_of(folder, script("print('the lock has gone with its holder')"))


async def test_a_download_that_comes_after_the_rename_finds_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "org--little"
    folder.mkdir(parents=True)
    steps = await steps_of(folder, script("raise SystemExit('nothing is left to do')"))
    assert [step.done for step in steps] == [True]
    assert [path.name for path in folder.parent.iterdir()] == ["org--little"]
