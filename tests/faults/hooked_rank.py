"""A test build: `thunderline` as it is, but for its rank, whose engine has a hook.

Before each step's computation the hook writes down whom the engine holds. For each time that it is told to it raises
once, in the middle of a decode step: the caches hold the step's tokens, and none is sampled. What it does lies in
HOME/hook: `steps.jsonl`, one `Held` a line; `raise`, a file that is removed as the exception is raised; `end`, which
names one of endings.py and is removed as that comes; and while they are there, `abort`, with which every step aborts
the process, `abort_in_load` and `abort_at_requests`.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import endings

FOLDER = "hook"
ABORT, ABORT_IN_LOAD, ABORT_AT_REQUESTS = "abort", "abort_in_load", "abort_at_requests"
# The warm-up's, and the canary's.
NOT_OF_A_CLIENT = ("", "canary")
INJECTED = "injected by a test"
# A request with this seed raises in every step, or ends every rank that it meets.
RAISES, KILLS = 666_001, 666_002


@dataclass(frozen=True)
class Held:
    """Whom the engine holds as a step begins: sequences by their seeds. `at_s` is of the machine's monotonic clock."""

    at_s: float
    running: list[int]
    waiting: list[int]
    parked_count: int


def hook(home: Path) -> Callable[[Any], Any]:
    folder = home / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    steps, trigger = (folder / "steps.jsonl").open("a", buffering=1), folder / "raise"

    def raise_once() -> None:
        if trigger.exists():
            trigger.unlink()
            raise RuntimeError(INJECTED)

    def on_step(engine: Any) -> Callable[[], None]:
        from time import monotonic

        running = [one.insert.params.seed for one in engine._running.values()]
        waiting = [one.params.seed for one in engine._waiting.values()]
        steps.write(json.dumps(asdict(Held(monotonic(), running, waiting, engine.parked_count))) + "\n")
        endings.end_as_told(folder / "end")
        if (folder / ABORT).exists():
            os.abort()
        if (folder / ABORT_AT_REQUESTS).exists() and any(
            one.insert.request_id not in NOT_OF_A_CLIENT for one in engine._running.values()
        ):
            os.abort()
        if RAISES in running:
            raise RuntimeError(INJECTED)
        if KILLS in running:
            os.abort()
        return raise_once

    return on_step


def abort_as_it_loads(home: Path) -> None:
    """The first that a load does is to read the model's config."""
    abort = home / FOLDER / ABORT_IN_LOAD

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith("/config.json") and abort.exists():
            os.abort()

    sys.addaudithook(look)


def tell(home: Path, ending: str) -> None:
    """The next step ends the process so."""
    (home / FOLDER / "told").write_text(ending)
    (home / FOLDER / "told").rename(home / FOLDER / "end")


def held(home: Path) -> list[Held]:
    """Every step so far."""
    text = (home / FOLDER / "steps.jsonl").read_text()
    # The last line may be half written.
    return [Held(**json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()]


def build(folder: Path) -> Path:
    """A BIN folder: our own environment's, with another `thunderline`. Every process is started from its BIN."""
    ours = Path(sys.executable).parent.parent
    bin_folder = folder / "bin"
    bin_folder.mkdir(parents=True)
    (folder / "lib").symlink_to(ours / "lib")
    shutil.copy(ours / "pyvenv.cfg", folder)
    python = bin_folder / "python"
    python.symlink_to(Path(sys.executable).resolve())
    program = bin_folder / "thunderline"
    program.write_text(
        f"#!{python}\nimport sys\nsys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from faults.hooked_rank import main\nmain()\n"
    )
    program.chmod(0o755)
    return bin_folder


def main() -> None:
    """In place of the console script."""
    if sys.argv[1] == "rank" and "--home" in sys.argv:
        from thunderline.rank.__main__ import main as rank

        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        home = Path(sys.argv[sys.argv.index("--home") + 1])
        abort_as_it_loads(home)
        sys.exit(rank(sys.argv[2:], hook(home)))
    from thunderline.cli.__main__ import main as thunderline

    thunderline()
