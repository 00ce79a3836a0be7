"""A test build: `thunderline` as it is, but for its rank, whose engine has a hook.

Before each step's computation the hook writes down whom the engine holds, and raises once for each time that it is
told to. What it does lies in HOME/hook: `steps.jsonl`, one `Held` a line; `raise`, a file that is removed as the
exception is raised; and `abort`, with which every step aborts the process.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = "hook"
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


def hook(home: Path) -> Callable[[Any], None]:
    folder = home / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    steps, trigger = (folder / "steps.jsonl").open("a", buffering=1), folder / "raise"

    def on_step(engine: Any) -> None:
        from time import monotonic

        running = [one.insert.params.seed for one in engine._running.values()]
        waiting = [one.params.seed for one in engine._waiting.values()]
        steps.write(json.dumps(asdict(Held(monotonic(), running, waiting, engine.parked_count))) + "\n")
        if trigger.exists():
            trigger.unlink()
            raise RuntimeError(INJECTED)
        if (folder / "abort").exists():
            os.abort()
        if RAISES in running:
            raise RuntimeError(INJECTED)
        if KILLS in running:
            os.abort()

    return on_step


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
        sys.exit(rank(sys.argv[2:], hook(home)))
    from thunderline.cli.__main__ import main as thunderline

    thunderline()
