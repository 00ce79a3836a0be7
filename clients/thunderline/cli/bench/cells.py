"""What a benchmark runs, in which order, and what its figures say. Pure.

A cell is a set of turns that are compared; in each of its rounds every turn is taken once, in rotating order, so that a
slow minute of the machine hits all of them. Ratios are taken within a round, and the median over rounds is reported.
"""

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# (a) the library's loop with nothing around it, (b) the library's own server, (c) us.
BARE, PEER, OURS = "bare", "peer", "ours"
# On a tiny model: our engine with nothing around it, and with its runner.
ENGINE, RUNNER = "engine", "runner"
ROUNDS_MIN = 9
NEW_TOKENS = 128
TEMPERATURE, TOP_P = 0.8, 0.9
NEIGHBOUR_COUNT = 4
# Chunks of a fixed size that a long prompt is processed in, for comparison.
CHUNKS = (64, 128, 512)


@dataclass(frozen=True, slots=True)
class Streams:
    """So many requests at once. `seeded` gives every request a seed of its own, to the peer too."""

    count: int
    sampled: bool = False
    seeded: bool = False

    @property
    def kind(self) -> str:
        return "seeded" if self.seeded else "sampled" if self.sampled else "greedy"


@dataclass(frozen=True, slots=True)
class Beside:
    """Long prompts that arrive beside streams that are being answered. `chunk_tokens`: for the bare loop only."""

    prompt_count: int
    prompt_tokens: int
    chunk_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Again:
    """One long prompt, and the same once more."""

    prompt_tokens: int


Load = Streams | Beside | Again


@dataclass(frozen=True, slots=True)
class Turn:
    name: str
    contender: str
    load: Load


@dataclass(frozen=True, slots=True)
class Cell:
    name: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """What one turn gave in one round. Times in seconds."""

    tokens: int
    wall_s: float
    # Of each request, from the moment that all were sent; for Again the first time's and the second's.
    first_token_s: tuple[float, ...]
    gap_p95_s: float
    gap_max_s: float = 0.0
    # CPU time of gateway, scheduler and runner; None where there are none.
    cpu_outside_s: float | None = None
    # Engine steps that took longer than a second, as the runner counts them; None where there is no runner.
    long_steps: int | None = None

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.wall_s

    @property
    def step_ms(self) -> float:
        """Of a decode step, once each request has its first token; all ask for equally many."""
        steps = self.tokens // len(self.first_token_s) - 1
        return 1000 * (self.wall_s - max(self.first_token_s)) / steps


def cells(streams: Sequence[int], seeded_streams: Sequence[int], waits: bool, hop: bool) -> list[Cell]:
    """Greedy and sampled at each count, side by side; then the seeded ones, the waits for a first token, the hop."""
    found = [
        Cell(
            f"{count} streams",
            tuple(
                Turn(f"{contender} {load.kind}", contender, load)
                for load in (Streams(count), Streams(count, sampled=True))
                for contender in (BARE, PEER, OURS)
            ),
        )
        for count in streams
    ]
    # The bare loop has no seeds: they are ours and the peer's.
    found += [
        Cell(f"{count} seeded streams", tuple(Turn(who, who, Streams(count, True, True)) for who in (PEER, OURS)))
        for count in seeded_streams
    ]
    if waits:
        fixed = tuple(Turn(f"chunks of {size}", BARE, Beside(1, 1500, size)) for size in CHUNKS)
        found.append(Cell("1500 tokens beside 4 streams", (*fixed, Turn(OURS, OURS, Beside(1, 1500)))))
        at_once = Turn("all at once", BARE, Beside(8, 1000, CHUNKS[0]))
        found.append(Cell("8 x 1000 tokens beside 4 streams", (at_once, Turn(OURS, OURS, Beside(8, 1000)))))
        found.append(Cell("1000 tokens twice", (Turn(OURS, OURS, Again(1000)),)))
    if hop:
        load = Streams(8)
        found.append(Cell("8 streams of a tiny model", (Turn(ENGINE, ENGINE, load), Turn(RUNNER, RUNNER, load))))
    return found


def order(cell: Cell, round_number: int) -> tuple[Turn, ...]:
    """The turns, rotated by one every second round and reversed in between: nobody always follows the same one."""
    shift = round_number // 2 % len(cell.turns)
    rotated = cell.turns[shift:] + cell.turns[:shift]
    return rotated[::-1] if round_number % 2 else rotated


def warm_up(cell: Cell) -> list[Turn]:
    """One of each shape for each contender: its first run compiles and touches memory, and is nobody's figure."""
    shapes = {(turn.contender, prompt_key(turn)): turn for turn in reversed(cell.turns)}
    return list(shapes.values())


def prompt_key(turn: Turn) -> str:
    """Turns of the same key get the same prompts: they are compared, and none of them sees another's."""
    return turn.load.kind if isinstance(turn.load, Streams) else ""


# Words for prompts: what they say does not matter; that no two for one server share a prefix does, since servers cache.
_WORDS = (
    "river stone window garden paper morning silver engine letter market forest bridge candle harbour winter table "
    "summer mirror island pocket ladder button basket shadow copper thunder blanket corner valley orchard"
).split()


def prompts(cell: Cell, round_number: int, turn: Turn, count: int) -> list[str]:
    """Prompts of 40 to 60 tokens, different in every round, the same for all that are compared."""
    rng = random.Random(f"{cell.name}/{round_number}/{prompt_key(turn)}")
    return [
        f"{rng.randrange(10**6)} Tell a story with these words: " + " ".join(rng.choices(_WORDS, k=rng.randint(30, 42)))
        for _ in range(count)
    ]


def long_text(key: str, words: int) -> str:
    """Begins like no other; at least one token a word."""
    rng = random.Random(key)
    return f"{rng.randrange(10**6)} " + " ".join(rng.choices(_WORDS, k=words))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted values lie; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def summary(cell: Cell, rounds: Sequence[Mapping[str, Run]]) -> dict[str, Any]:
    """Medians per turn, and the ratios of (c) within each round with their quartiles."""
    found: dict[str, Any] = {"rounds": len(rounds)}
    for turn in cell.turns:
        runs = [one[turn.name] for one in rounds]
        firsts = [value for run in runs for value in run.first_token_s]
        found[turn.name] = {
            "tokens_per_s": round(statistics.median(run.tokens_per_s for run in runs), 2),
            "first_token_p50_s": round(percentile(firsts, 0.5), 4),
            "first_token_p95_s": round(percentile(firsts, 0.95), 4),
            "gap_p95_s": round(statistics.median(run.gap_p95_s for run in runs), 4),
            "gap_max_s": round(statistics.median(run.gap_max_s for run in runs), 4),
            "gap_worst_s": round(max(run.gap_max_s for run in runs), 4),
        }
        if counted := [run.long_steps for run in runs if run.long_steps is not None]:
            found[turn.name]["steps_over_1_s"] = sum(counted)
        costs = [run.cpu_outside_s / run.tokens for run in runs if run.cpu_outside_s is not None and run.tokens]
        if costs:
            found[turn.name]["cpu_ms_per_token_outside"] = round(1000 * statistics.median(costs), 3)
    comparisons = {name: [compare(one) for one in rounds] for name, compare in _comparisons(cell).items()}
    return {**found, **{name: spread(values) for name, values in comparisons.items()}}


def _comparisons(cell: Cell) -> dict[str, Any]:
    """Name of each figure that is taken within a round: from the round's runs to a number."""

    def speed(ours: str, rival: str) -> Any:
        return lambda runs: runs[ours].tokens_per_s / runs[rival].tokens_per_s

    def later_ms(ours: str, rival: str) -> Any:
        return lambda runs: 1000 * (min(runs[ours].first_token_s) - min(runs[rival].first_token_s))

    names = [turn.name for turn in cell.turns]
    load = cell.turns[-1].load
    match load:
        case Beside(prompt_count=1):
            fixed = names[:-1]
            return {
                "first_token_to_best_chunk": lambda runs: (
                    runs[OURS].first_token_s[0] / min(runs[name].first_token_s[0] for name in fixed)
                )
            }
        case Beside():
            return {
                "first_answer_to_all_at_once": lambda runs: (
                    min(runs[OURS].first_token_s) / min(runs["all at once"].first_token_s)
                )
            }
        case Again():
            return {"second_time_to_first": lambda runs: runs[OURS].first_token_s[1] / runs[OURS].first_token_s[0]}
        case Streams(seeded=True):
            return {"ours_to_peer": speed(OURS, PEER)}
        case Streams() if RUNNER in names:
            return {"runner_adds_ms_per_step": lambda runs: runs[RUNNER].step_ms - runs[ENGINE].step_ms}
    found = {
        f"ours_to_{rival}_{kind}": speed(f"{OURS} {kind}", f"{rival} {kind}")
        for kind in ("greedy", "sampled")
        for rival in (BARE, PEER)
    }
    found["ours_sampled_to_greedy"] = speed(f"{OURS} sampled", f"{OURS} greedy")
    found["first_token_later_than_bare_ms"] = later_ms(f"{OURS} greedy", f"{BARE} greedy")
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    return {
        "median": round(statistics.median(values), 3),
        "p25": round(percentile(values, 0.25), 3),
        "p75": round(percentile(values, 0.75), 3),
    }
