"""What may be done with a model's architecture in a batch.

mlx-lm answers some architectures differently in a batch of uneven prompts than alone, silently. So a tiny random copy
of the model's config (tiny.py) answers both ways; audit.py does it in a process of its own. No architecture is named
here: what is measured decides.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from thunderline.rank.admission import SEQUENCE_COUNT_MAX
from thunderline.rank.prefill import PROMPT_COUNT_MAX
from thunderline.rank.tiny import VOCABULARY_SIZE, tiny

# Uneven on purpose, some longer than a window of the tiny copy, the third longer than a step's chunk; the last joins
# late.
PROMPT_LENGTHS = (4, 11, 50, 9)
LATE_STEP = 5
# Neither a part nor a multiple of the tiny copy's window.
CHUNK_TOKENS = 5
ANSWER_TOKENS = 14
# Of the weights. A wrong mask or state is wrong in every copy; a router's near-tie, that rounding decides, in one. If
# such a tie makes a copy answer by how its prompts are cut, it says nothing of batches: which copy that is depends on
# the processor's rounding, and another is taken in its place.
SEEDS, COPY_COUNT = (1, 2, 3, 4), 2
# Log-probabilities. How much rounding does in a copy shows when its prompts are cut otherwise (1e-6, in some 1e-4); ten
# times as much is no rounding any more. The smallest wrong state that was seen made 3e-4, where rounding made 2e-6.
NOISE_FACTOR = 10.0
DIFFERENCE_MIN, DIFFERENCE_MAX = 5e-5, 1e-3
# An answer that depends on the cut itself: 6e-2 was seen.
CUT_DIFFERENCE_MAX = 5e-3
# Spreads the logits, so that greedy tokens do not hang on rounding.
WEIGHT_SCALE = 0.15


@dataclass(frozen=True, slots=True)
class Batching:
    """What may be done with a model."""

    name: str
    batch_size_max: int
    prompt_count_max: int


BATCH = Batching("batch", SEQUENCE_COUNT_MAX, PROMPT_COUNT_MAX)
ONE_PROMPT = Batching("one_prompt_at_a_time", SEQUENCE_COUNT_MAX, 1)
ALONE = Batching("one_sequence_at_a_time", 1, 1)
BATCHINGS = {one.name: one for one in (BATCH, ONE_PROMPT, ALONE)}


class CannotServe(Exception):
    """mlx-lm's batches do not take the architecture, or answer even one sequence of it otherwise."""


# Tokens and log-probabilities of each prompt's answer.
Answers = list[tuple[tuple[int, ...], tuple[float, ...]]]
# Of log-probabilities, endless when tokens differ; and in words.
Difference = tuple[float, str]


@dataclass(frozen=True, slots=True)
class _Copy:
    """A tiny model, what it answers in mlx-lm's own loop, and what changes when its prompts are cut into chunks."""

    model: Any
    wanted: Answers
    cut: Difference

    @property
    def unrest(self) -> str:
        """How its answers depend on the cut itself; empty when that is rounding."""
        return _too_much(self.cut, CUT_DIFFERENCE_MAX)


def build(config: Mapping[str, Any]) -> Any:
    """The model of a config, lazily: no weight is computed. Raises whatever mlx-lm raises."""
    from mlx_lm.utils import _get_classes

    kind, arguments = _get_classes(dict(config))
    return kind(arguments.from_dict(dict(config)))


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """With the sizes that the architecture's code assumes where the config is silent: a window of 2,048, say."""
    from mlx_lm.utils import _get_classes

    _, arguments = _get_classes(dict(config))
    sizes = {field.name: field.default for field in fields(arguments) if type(field.default) is int}
    return {**sizes, **config}


def judge(config: Mapping[str, Any]) -> tuple[Batching, str]:
    """The widest way of batching that gives the answers of mlx-lm's own loop, and why no wider one.

    What cannot be tried is run in the one way that is right for all that mlx-lm batches: alone.

    Raises CannotServe.
    """
    from mlx_lm.models.cache import make_prompt_cache

    try:
        small = tiny(complete(config))
        copies = [_copy(small, SEEDS[0])]
    except Exception as error:  # a config that cannot be made small is no fault of the model's
        return ALONE, f"a tiny copy cannot be made ({type(error).__name__}: {error})"[:200]
    caches = make_prompt_cache(copies[0].model)
    bare = sorted({type(cache).__name__ for cache in caches if not hasattr(cache, "merge")})
    if bare:
        raise CannotServe(f"mlx-lm cannot batch its caches ({', '.join(bare)})")

    def everywhere(differs: Callable[[_Copy], str]) -> str:
        found, calm_count = "", 0
        for number, seed in enumerate(SEEDS):
            if number == len(copies):
                copies.append(_copy(small, seed))
            if copies[number].unrest:
                continue
            found, calm_count = differs(copies[number]), calm_count + 1
            if not found or calm_count == COPY_COUNT:
                break
        return found or ("" if calm_count else copies[0].unrest)

    # Chunks follow the measured speed, so nothing better can be promised than what mlx-lm's own loop does.
    if found := everywhere(lambda copy: copy.unrest):
        return ALONE, f"mlx-lm's own loop answers a tiny copy by how its prompt is cut into chunks: {found}"
    reason = ""
    for batching in BATCHINGS.values():
        found = everywhere(lambda copy, batching=batching: _differs(copy, batching))  # type: ignore[misc]
        if not found:
            return batching, reason
        reason = f"with {batching.name} a tiny copy answers otherwise than in mlx-lm's own loop: {found}"
    raise CannotServe(reason)


def _copy(small: Mapping[str, Any], seed: int) -> _Copy:
    model = random_weights(build(small), seed)
    wanted = _own_answers(model, max(PROMPT_LENGTHS))
    if not all(math.isfinite(one) for _, logprobs in wanted for one in logprobs):
        raise ArithmeticError("it answers no numbers")
    return _Copy(model, wanted, _difference(_own_answers(model, CHUNK_TOKENS), wanted))


def _differs(copy: _Copy, batching: Batching) -> str:
    """How a batch's answers differ from those that are wanted; empty when they do not."""
    try:
        together = _answers(copy.model, batching)
    except Exception as error:  # an architecture that cannot batch says so in its own way
        return f"{type(error).__name__}: {error}"[:120]
    limit = min(DIFFERENCE_MAX, max(DIFFERENCE_MIN, NOISE_FACTOR * copy.cut[0]))
    return _too_much(_difference(together, copy.wanted), limit)


def _too_much(difference: Difference, limit: float) -> str:
    """Empty when it is rounding."""
    return "" if difference[0] < limit else difference[1]


def _difference(answers: Answers, wanted: Answers) -> Difference:
    """The largest one."""
    found: Difference = (0.0, "")
    for length, (tokens, logprobs), (right, right_logprobs) in zip(PROMPT_LENGTHS, answers, wanted, strict=True):
        if tokens != right:
            return math.inf, f"the prompt of {length} tokens gets other tokens"
        differences = [abs(a - b) for a, b in zip(logprobs, right_logprobs, strict=True)]
        if not all(map(math.isfinite, differences)):
            return math.inf, f"the prompt of {length} tokens gets no numbers"
        worst = max(differences)
        if worst > found[0]:
            found = worst, f"the prompt of {length} tokens gets log-probabilities that differ by {worst:.2g}"
    return found


def random_weights(model: Any, seed: int = SEEDS[0]) -> Any:
    import mlx.core as mx
    from mlx.utils import tree_map

    floats = (mx.float32, mx.float16, mx.bfloat16)
    mx.random.seed(seed)

    def fresh(array: mx.array) -> mx.array:
        if array.dtype not in floats:
            return array
        return array.astype(mx.float32) if array.ndim == 1 else mx.random.normal(array.shape) * WEIGHT_SCALE

    model.update(tree_map(fresh, model.parameters()))
    mx.eval(model.parameters())
    return model


def _prompts() -> list[tuple[int, ...]]:
    draw = random.Random(5)
    return [tuple(draw.choices(range(3, VOCABULARY_SIZE), k=length)) for length in PROMPT_LENGTHS]


def _own_answers(model: Any, chunk_tokens: int) -> Answers:
    """Greedy, as mlx-lm's `generate` does it: one prompt after the other in chunks, each one's last token by itself."""
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache

    answers = []
    for prompt in _prompts():
        cache = make_prompt_cache(model)
        for begin in range(0, len(prompt) - 1, chunk_tokens):
            model(mx.array([prompt[begin : min(begin + chunk_tokens, len(prompt) - 1)]]), cache=cache)
            mx.eval([one.state for one in cache])
        token, tokens, logprobs = prompt[-1], [], []
        for _ in range(ANSWER_TOKENS):
            logits = model(mx.array([[token]]), cache=cache)[0, -1]
            token = int(mx.argmax(logits).tolist())  # type: ignore[arg-type]
            tokens.append(token)
            logprobs.append(float((logits[token] - mx.logsumexp(logits)).item()))
        answers.append((tuple(tokens), tuple(logprobs)))
    return answers


def _answers(model: Any, batching: Batching) -> Answers:
    """Greedy answers of every prompt with the chosen tokens' log-probabilities; all but the last begin together."""
    from thunderline.rank.engine import Engine
    from thunderline.rank.sampler import Params
    from thunderline.rank.values import Insert

    engine = Engine(model, (), 100_000, batching.batch_size_max, batching.prompt_count_max)
    inserts = [
        Insert(key, "", prompt, (), Params(), ANSWER_TOKENS, logprobs=True, ignore_eos=True)
        for key, prompt in enumerate(_prompts())
    ]
    for insert in inserts[:-1]:
        engine.insert(insert)
    tokens: dict[int, list[int]] = {insert.key: [] for insert in inserts}
    logprobs: dict[int, list[float]] = {insert.key: [] for insert in inserts}
    step = 0
    while engine.has_work or step <= LATE_STEP:
        step += 1
        if step == LATE_STEP:
            engine.insert(inserts[-1])
        for news in engine.step().news:
            tokens[news.key] += news.token_ids
            logprobs[news.key] += [one.chosen for one in news.logprobs]
    return [(tuple(tokens[insert.key]), tuple(logprobs[insert.key])) for insert in inserts]
