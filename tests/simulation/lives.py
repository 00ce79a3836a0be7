"""Lives by seed: how many, in which processes, and which of them catch a bug."""

import contextlib
import gc
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

PROVES = os.environ.get("PROVE") == "simulation"
SEED_COUNT = 10_000 if PROVES else 1_000
SEEDS = [int(os.environ["SEED"])] if "SEED" in os.environ else range(SEED_COUNT)
# Of networks `make test` lives half in discovery's worlds and half in topology's: a tenth of 10,000 together.
NETWORK_SEEDS = SEEDS if PROVES else SEEDS[:500]
BLOCK = 100
# Every seeded bug is found within so many.
BUG_SEED_COUNT = 1_000
LARGE_HOSTS = 100
LARGE_SEEDS = range(20 if PROVES else 1)
LARGE_BLOCK = 2
# A life takes 40 s of a core, and a machine that proves may have others to do.
LARGE_DEADLINE_S = 1800

# Of a seed: which law it breaks; "" for none.
Live = Callable[[int], str]
Lived = Callable[[Live, Iterable[int]], list[str]]


def collect_rarely() -> None:
    """Worlds make many values, and few that the collector has to find. A quarter of the time."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


@contextlib.contextmanager
def living() -> Iterator[Lived]:
    """Lives one life for each seed, and tells the laws that were broken.

    A proof does so in one process for each core; otherwise tests run beside each other already. Each world is by itself
    either way.
    """
    if not PROVES:
        yield lambda live, seeds: [told for seed in seeds if (told := live(seed))]
        return
    # Those who were spawned would not know the modules of tests.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork"), initializer=collect_rarely) as pool:
        yield lambda live, seeds: [told for told in pool.map(live, seeds) if told]


def caught(live: Live, known_seed: int | None) -> str:
    """What the first seed tells that notices a bug, "" when none does. One that is known to do so goes before all."""
    seeds = range(BUG_SEED_COUNT) if known_seed is None else [known_seed, *range(BUG_SEED_COUNT)]
    return next((told for seed in seeds if (told := live(seed))), "")
