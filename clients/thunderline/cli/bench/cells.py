"""What a benchmark runs, in which order, and what its figures say. Pure.

A cell is one load (streams, sampling); in each of its rounds every contender runs once, in rotating order, so that a
slow minute of the machine hits all of them. Ratios are taken within a round, and the median over rounds is reported.
"""

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# (a) the library's loop with nothing around it, (b) the library's own server, (c) us.
BARE, PEER, OURS = "bare", "peer", "ours"
ROUNDS_MIN = 9
NEW_TOKENS = 128
TEMPERATURE, TOP_P = 0.8, 0.9


@dataclass(frozen=True, slots=True)
class Cell:
    """One load. `seeded` gives every request a seed of its own, to the peer too."""

    streams: int
    sampled: bool
    seeded: bool = False

    @property
    def name(self) -> str:
        return f"{self.streams}-{'seeded' if self.seeded else 'sampled' if self.sampled else 'greedy'}"

    @property
    def contenders(self) -> tuple[str, ...]:
        # The bare loop has no seeds: they are ours and the peer's.
        return (PEER, OURS) if self.seeded else (BARE, PEER, OURS)


@dataclass(frozen=True, slots=True)
class Run:
    """What one contender did in one round. Times in seconds."""

    tokens: int
    wall_s: float
    first_token_s: tuple[float, ...]
    gap_p95_s: float
    # CPU time of every process but the one that computes; None where there is none.
    cpu_outside_s: float | None = None

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.wall_s


def cells(streams: Sequence[int], seeded_streams: Sequence[int]) -> list[Cell]:
    """Greedy and sampled at each count, then the seeded ones."""
    plain = [Cell(count, sampled) for count in streams for sampled in (False, True)]
    return plain + [Cell(count, sampled=True, seeded=True) for count in seeded_streams]


def order(cell: Cell, round_number: int) -> tuple[str, ...]:
    """The contenders, rotated by one each round."""
    shift = round_number % len(cell.contenders)
    return cell.contenders[shift:] + cell.contenders[:shift]


# Words for prompts: what a prompt says does not matter, that no two share a prefix does (both servers cache prefixes).
_WORDS = (
    "river stone window garden paper morning silver engine letter market forest bridge candle harbour winter table "
    "summer mirror island pocket ladder button basket shadow copper thunder blanket corner valley orchard"
).split()


def prompts(cell: Cell, round_number: int, contender: str) -> list[str]:
    """Prompts of 40 to 60 words' tokens, different in every run."""
    rng = random.Random(f"{cell.name}/{round_number}/{contender}")
    return [
        f"{rng.randrange(10**6)} Tell a story with these words: " + " ".join(rng.choices(_WORDS, k=rng.randint(30, 42)))
        for _ in range(cell.streams)
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted values lie; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def summary(rounds: Sequence[Mapping[str, Run]]) -> dict[str, Any]:
    """Medians per contender, and the ratios of (c) within each round with their quartiles."""
    found: dict[str, Any] = {"rounds": len(rounds)}
    for contender in sorted({name for one in rounds for name in one}):
        runs = [one[contender] for one in rounds if contender in one]
        firsts = [value for run in runs for value in run.first_token_s]
        found[contender] = {
            "tokens_per_s": round(statistics.median(run.tokens_per_s for run in runs), 2),
            "first_token_p50_s": round(percentile(firsts, 0.5), 4),
            "first_token_p95_s": round(percentile(firsts, 0.95), 4),
            "gap_p95_s": round(statistics.median(run.gap_p95_s for run in runs), 4),
        }
        costs = [run.cpu_outside_s / run.tokens for run in runs if run.cpu_outside_s is not None and run.tokens]
        if costs:
            found[contender]["cpu_ms_per_token_outside"] = round(1000 * statistics.median(costs), 3)
    for rival in (BARE, PEER):
        pairs = [one[OURS].tokens_per_s / one[rival].tokens_per_s for one in rounds if OURS in one and rival in one]
        if pairs:
            found[f"ours_to_{rival}"] = spread(pairs)
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    return {
        "median": round(statistics.median(values), 3),
        "p25": round(percentile(values, 0.25), 3),
        "p75": round(percentile(values, 0.75), 3),
    }
