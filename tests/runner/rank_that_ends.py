"""`thunderline rank` as it is, but for its hook: it does in a step what HOME/orders/INSTANCE names (endings.py).

With `wait` there it stands before its first step, in its warm-up, until that is another order or none. With
`memory` its address space has room for its imports, not for a model of some size.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import endings
from thunderline.rank.__main__ import main

WAIT, MEMORY = "wait", "memory"
MEMORY_BYTES = 4 * 2**30
WAIT_COUNT_MAX, LOOK_EVERY_S = 3000, 0.02


def order(home: Path, instance: str) -> Path:
    return home / "orders" / instance


def hook(path: Path) -> Callable[[Any], None]:
    def on_step(_: Any) -> None:
        for _ in range(WAIT_COUNT_MAX):
            if not path.exists() or path.read_text() != WAIT:
                break
            time.sleep(LOOK_EVERY_S)
        endings.end_as_told(path)

    return on_step


if __name__ == "__main__":
    flags = sys.argv[1:]
    mine = order(Path(flags[flags.index("--home") + 1]), flags[flags.index("--instance") + 1])
    if mine.exists() and mine.read_text() == MEMORY:
        endings.limit_memory(MEMORY_BYTES)
    sys.exit(main(flags, hook(mine)))
