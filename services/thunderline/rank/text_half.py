"""mlx_lm without its text half: a rank knows only token ids, and that half takes two thirds of the time of its start.

Measured: `import mlx_lm` 1.6 s, of which transformers and what it registers are 1.2 s; every rank that comes back after
a crash would pay them again.
"""

import sys
from types import ModuleType
from typing import Any

MODULES = ("transformers", "mlx_lm.tokenizer_utils")


class _LeftOut(ModuleType):
    """Has whatever is imported from it; it can be named in an annotation, and not be made."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        where = f"{self.__name__}.{name}"

        def refuse(*arguments: Any, **options: Any) -> Any:
            raise RuntimeError(f"{where} is left out of a rank, which knows only token ids")

        return type(name, (), {"__new__": refuse})


def leave_out() -> None:
    """Before the first import of mlx_lm in a process that does nothing else with it; later it has no effect."""
    if "mlx_lm" not in sys.modules:
        for name in MODULES:
            sys.modules.setdefault(name, _LeftOut(name))
