"""Whether a model of an architecture can be divided among ranks: a tiny copy answers whole and divided, and both ways
must be the same. No architecture is named here.

Uneven prompts in a batch, one that joins late, one that leaves and comes back with its caches: with a single sequence
some architectures answer right even when positions are not kept at all.
"""

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator

from thunderline.rank.architecture import Batching, build, random_weights
from thunderline.rank.pipeline import Advance, CannotSplit, Joined, advance, layers_of
from thunderline.rank.tiny import VOCABULARY_SIZE

# The third is longer than a window of the tiny copy; the last joins late.
PROMPT_LENGTHS = (4, 11, 17, 9)
CHUNK_TOKENS = 5
ANSWER_TOKENS = 14
# The second prompt leaves once it has this many tokens, and comes back with some more.
LEAVING_AFTER_TOKENS = 3
STEP_COUNT_MAX = 400
REASON_LENGTH_MAX = 200
# The parts do what the whole does, operation by operation: 0 was measured with every architecture that can be split.
DIFFERENCE_MAX = 5e-5


@dataclass(frozen=True, slots=True)
class Split:
    """`reason` says why not. `was_tried` is False where the machine was at fault, not the architecture."""

    is_possible: bool
    reason: str = ""
    was_tried: bool = True


@dataclass(frozen=True, slots=True)
class Answers:
    """Of one story, by sequence: greedy tokens, and the log-probabilities of the whole vocabulary [tokens, V]."""

    tokens: list[list[int]]
    logprobs: list[mx.array]


def pipeline(small: Mapping[str, Any], batching: Batching, seed: int, move: Advance = advance) -> Split:
    """Whether parts of a tiny config's model answer as the whole one, cut in two and, unevenly, in three."""
    whole = random_weights(fresh(small, seed), seed)

    def copied() -> Any:
        copy = fresh(small, seed)
        copy.update(whole.parameters())
        return copy

    try:
        count = len(layers_of(whole))
        wanted = tell(whole, batching)
        for cuts in _cuts(count):
            if found := difference(tell(Joined(copied, cuts, move), batching), wanted, DIFFERENCE_MAX):
                return Split(False, f"a tiny copy in {len(cuts) + 1} parts answers otherwise: {found}")
    except CannotSplit as error:
        return Split(False, str(error))
    except Exception as error:  # whatever an architecture's code makes of layers that are not there
        return Split(False, f"a tiny copy in parts fails: {type(error).__name__}: {error}"[:REASON_LENGTH_MAX])
    return Split(True) if count > 1 else Split(False, "it has one layer")


def fresh(small: Mapping[str, Any], seed: int) -> Any:
    """A model that is the same each time: some draw more than their weights when they are made."""
    mx.random.seed(seed)
    return build(small)


def _cuts(layer_count: int) -> Iterator[tuple[int, ...]]:
    if layer_count > 1:
        yield (layer_count // 2,)
    if layer_count > 2:
        yield 1, max(2, layer_count - 2)


def tell(model: Any, batching: Batching) -> Answers:
    """The story: the same operations each time, whatever the machine's speed, so that ranks stay in step."""
    generator = BatchGenerator(
        model,
        max_tokens=ANSWER_TOKENS,
        prefill_step_size=CHUNK_TOKENS,
        prefill_batch_size=min(batching.prompt_count_max, batching.batch_size_max),
        completion_batch_size=batching.batch_size_max,
        stream=mx.default_stream(mx.default_device()),
    )
    prompts = _prompts()
    uids = generator.insert(prompts[:-1])
    tokens: dict[int, list[int]] = {uid: [] for uid in uids}
    logprobs: dict[int, list[mx.array]] = {uid: [] for uid in uids}
    open_uids = set(uids)
    leaving: int | None = uids[1]
    for _ in range(STEP_COUNT_MAX):
        for response in generator.next()[1]:
            tokens[response.uid].append(response.token)
            logprobs[response.uid].append(response.logprobs)
            if response.finish_reason is not None:
                open_uids.discard(response.uid)
        if leaving is not None and len(tokens[leaving]) == LEAVING_AFTER_TOKENS:
            ((caches, held),) = generator.remove([leaving], return_prompt_caches=True).values()
            new = generator.insert([prompts[-1], prompts[0]], caches=[None, caches], all_tokens=[[], list(held)])
            tokens |= {uid: [] for uid in new}
            logprobs |= {uid: [] for uid in new}
            open_uids = (open_uids - {leaving}) | set(new)
            leaving = None
        if not open_uids:
            break
    else:
        raise CannotSplit(f"a tiny copy is not done after {STEP_COUNT_MAX} steps")
    generator.close()
    return Answers([tokens[uid] for uid in sorted(tokens)], [mx.stack(logprobs[uid]) for uid in sorted(logprobs)])


def _prompts() -> list[list[int]]:
    draw = random.Random(7)
    return [draw.choices(range(3, VOCABULARY_SIZE), k=length) for length in PROMPT_LENGTHS]


def difference(answers: Answers, wanted: Answers, limit: float) -> str:
    """What differs, in words; empty when nothing does."""
    if answers.tokens != wanted.tokens:
        return f"other tokens{_first_logprobs(answers, wanted)}"
    worst = max(_largest(one, other) for one, other in zip(answers.logprobs, wanted.logprobs, strict=True))
    # Not a number is no rounding either.
    return "" if worst < limit else f"log-probabilities differ by {worst:.2g}"


def _first_logprobs(answers: Answers, wanted: Answers) -> str:
    """How far apart the first token of each is, where no other token has come between yet."""
    pairs = zip(answers.logprobs, wanted.logprobs, strict=True)
    return f", the first ones by {max(_largest(one[:1], other[:1]) for one, other in pairs):.2g}"


def _largest(one: mx.array, other: mx.array) -> float:
    # A token that can never be chosen is -inf in both.
    apart = mx.where(one == other, mx.zeros_like(one), mx.abs(one - other))
    found = float(mx.max(apart).item())  # type: ignore[arg-type]
    return math.inf if math.isnan(found) else found
