"""Stories of the engine on a tiny random llama, in float32."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_map
from mlx_lm.generate import generate_step
from mlx_lm.models import gemma3_text, mamba

from thunderline.rank.engine import Engine
from thunderline.rank.sampler import Params
from thunderline.rank.values import Insert, Logprobs, Report

STEP_COUNT_MAX = 2000
NEVER = 511
LENGTH = 24


def prompt(seed: int, length: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(range(3, 500), k=length))


PROMPTS = [prompt(seed, length) for seed, length in enumerate((1, 2, 9, 30, 17, 64, 5, 41))]
SAMPLED = [
    Params(0.8, seed=1),
    Params(0.9, top_p=0.9, seed=2),
    Params(),
    Params(0.7, top_k=20, seed=2**63 + 4),
    Params(1.0, min_p=0.05, seed=5),
    Params(0.8, presence_penalty=0.5, frequency_penalty=0.3, seed=6),
    Params(1.0, logit_bias={7: 2.0, 8: -100.0}, seed=7),
    Params(0.0, repetition_penalty=1.3),
]


@dataclass
class Story:
    """An engine and what it said. Keys are counted from 1."""

    engine: Engine
    tokens: dict[int, list[int]] = field(default_factory=dict)
    logprobs: dict[int, list[Logprobs]] = field(default_factory=dict)
    finish: dict[int, str] = field(default_factory=dict)
    cached: dict[int, int] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)

    def insert(
        self,
        prompt: Sequence[int],
        params: Params | None = None,
        max_tokens: int = LENGTH,
        resume: Sequence[int] = (),
        ignore_eos: bool = True,
        top: int | None = None,
    ) -> int:
        key = len(self.tokens) + 1
        self.tokens[key], self.logprobs[key] = [], []
        self.engine.insert(
            Insert(
                key,
                f"request {key}",
                tuple(prompt),
                tuple(resume),
                params or Params(),
                max_tokens,
                logprobs=top is not None,
                top_logprob_count=top or 0,
                ignore_eos=ignore_eos,
            )
        )
        return key

    def step(self) -> Report:
        report = self.engine.step()
        self.reports.append(report)
        for news in report.news:
            assert news.key not in self.finish, "news after the finish"
            self.tokens[news.key] += news.token_ids
            self.logprobs[news.key] += news.logprobs
            self.cached[news.key] = max(self.cached.get(news.key, 0), news.cached_tokens)
            if news.finish:
                self.finish[news.key] = news.finish
        return report

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        for _ in range(STEP_COUNT_MAX):
            if not self.engine.has_work or until():
                return
            self.step()
        raise AssertionError("the engine does not come to an end")


def story(model: Any, ends: Iterable[int] = (NEVER,), kv_budget_tokens: int = 100_000, **more: Any) -> Story:
    return Story(Engine(model, list(ends), kv_budget_tokens, **more))


def alone(model: Any, prompt: Sequence[int], params: Params, max_tokens: int = LENGTH) -> list[int]:
    one = story(model)
    key = one.insert(prompt, params, max_tokens)
    one.run()
    return one.tokens[key]


def reference(model: Any, prompt: Sequence[int], count: int = LENGTH) -> list[int]:
    stream = mx.default_stream(mx.default_device())
    steps = generate_step(mx.array(list(prompt)), model, stream, max_tokens=count)
    return [int(token) for token, _ in steps]


def test_greedy_tokens_equal_mlx_lms_own_one_by_one_and_together(tiny: Any) -> None:
    wanted = [reference(tiny, one) for one in PROMPTS]
    assert [alone(tiny, one, Params()) for one in PROMPTS] == wanted
    together = story(tiny)
    keys = [together.insert(one) for one in PROMPTS]
    together.run()
    assert [together.tokens[key] for key in keys] == wanted
    assert set(together.finish.values()) == {"length"}


@pytest.mark.parametrize("seed", range(4), ids=lambda seed: f"company {seed}")
def test_a_seed_means_the_same_in_any_company(tiny: Any, seed: int) -> None:
    wanted = [alone(tiny, one, params) for one, params in zip(PROMPTS, SAMPLED, strict=True)]
    draw = random.Random(seed)
    together = story(tiny)
    keys: dict[int, int] = {}
    strangers: list[int] = []
    waiting = draw.sample(range(len(PROMPTS)), k=len(PROMPTS))
    while waiting or together.engine.has_work:
        if waiting and draw.random() < 0.5:
            mine = waiting.pop()
            keys[mine] = together.insert(PROMPTS[mine], SAMPLED[mine])
        if draw.random() < 0.3 and len(strangers) < 8:
            strangers.append(together.insert(prompt(draw.randrange(10**6), draw.randint(1, 90)), Params(1.0, seed=3)))
        if strangers and draw.random() < 0.2:
            together.engine.remove(draw.choice(strangers))
        if together.engine.has_work:
            together.step()
        assert len(together.reports) < STEP_COUNT_MAX
    assert [together.tokens[keys[i]] for i in range(len(PROMPTS))] == wanted


@pytest.mark.parametrize("delivered", [1, 7, 20], ids=lambda delivered: f"after {delivered} tokens")
def test_a_resume_goes_on_with_the_same_tokens(tiny: Any, delivered: int) -> None:
    wanted = [alone(tiny, one, params) for one, params in zip(PROMPTS, SAMPLED, strict=True)]
    resumed = story(tiny)
    for one, params, tokens in zip(PROMPTS, SAMPLED, wanted, strict=True):
        resumed.insert(one, params, resume=tokens[:delivered])
    resumed.run()
    assert list(resumed.tokens.values()) == [tokens[delivered:] for tokens in wanted]


def test_an_end_token_is_reported_and_ends_the_sequence(tiny: Any) -> None:
    wanted = reference(tiny, PROMPTS[3])
    end = wanted[10]
    one = story(tiny, ends=[end])
    first, second = one.insert(PROMPTS[3], ignore_eos=False), one.insert(PROMPTS[3], ignore_eos=True)
    one.run()
    assert one.tokens[first] == wanted[: wanted.index(end) + 1]
    assert one.finish == {first: "stop", second: "length"}
    assert one.tokens[second] == wanted


def test_a_removed_sequence_says_nothing_more_and_the_others_keep_their_tokens(tiny: Any) -> None:
    wanted = alone(tiny, PROMPTS[5], SAMPLED[0])
    one = story(tiny)
    stays, leaves = one.insert(PROMPTS[5], SAMPLED[0]), one.insert(PROMPTS[3], SAMPLED[1])
    one.run(until=lambda: len(one.tokens[leaves]) == 5)
    one.engine.remove(leaves)
    assert one.step().running_count == 1
    one.run()
    assert len(one.tokens[leaves]) == 5
    assert one.tokens[stays] == wanted


@pytest.mark.parametrize("steps", [0, 1, 2], ids=["before its first step", "in its prompt", "as it joins"])
def test_a_sequence_may_be_removed_at_any_time(tiny: Any, steps: int) -> None:
    one = story(tiny)
    stays, leaves = one.insert(PROMPTS[2]), one.insert(prompt(1, 150))
    for _ in range(steps):
        one.step()
    one.engine.remove(leaves)
    one.engine.remove(leaves)
    one.engine.remove(12345)
    one.run()
    assert one.tokens[stays] == reference(tiny, PROMPTS[2])


def test_a_repeated_prompt_leaves_one_token_and_gives_the_same_answer(tiny: Any) -> None:
    one = story(tiny)
    first = one.insert(PROMPTS[5])
    one.run()
    second = one.insert(PROMPTS[5])
    one.run()
    assert (one.cached[first], one.cached[second]) == (0, len(PROMPTS[5]) - 1)
    assert one.tokens[first] == one.tokens[second]


def test_a_prompt_that_goes_on_from_an_answer_finds_both_in_the_cache(tiny: Any) -> None:
    one = story(tiny)
    first = one.insert(PROMPTS[5])
    one.run()
    longer = (*PROMPTS[5], *one.tokens[first], *prompt(99, 12))
    second = one.insert(longer, SAMPLED[0])
    one.run()
    assert one.cached[second] == len(PROMPTS[5]) + LENGTH
    assert one.tokens[second] == alone(tiny, longer, SAMPLED[0])


def test_one_entry_serves_two_at_once_and_stays_whole(tiny: Any) -> None:
    one = story(tiny)
    one.insert(PROMPTS[5])
    one.run()
    keys = [one.insert((*PROMPTS[5][:40], *prompt(seed, 10)), SAMPLED[seed]) for seed in range(3)]
    one.run()
    again = one.insert(PROMPTS[5])
    one.run()
    for seed, key in enumerate(keys):
        assert one.cached[key] == 40
        assert one.tokens[key] == alone(tiny, (*PROMPTS[5][:40], *prompt(seed, 10)), SAMPLED[seed])
    assert one.tokens[again] == reference(tiny, PROMPTS[5])


@pytest.fixture(scope="module")
def sliding() -> Any:
    """Every second layer sees the last 32 tokens only: its cache rotates, and cannot be cut once it has."""
    config = {
        "model_type": "gemma3_text",
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "head_dim": 16,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "vocab_size": 512,
        "sliding_window": 32,
        "sliding_window_pattern": 2,
        "max_position_embeddings": 2048,
    }
    mx.random.seed(0)
    model = gemma3_text.Model(gemma3_text.ModelArgs.from_dict(config))
    model.update(tree_map(lambda x: x if x.ndim == 1 else mx.random.normal(x.shape) * 0.15, model.parameters()))
    return model


def test_a_rotated_cache_is_used_whole_or_not_at_all(sliding: Any) -> None:
    mine, one = prompt(1, 100), story(sliding)
    first = one.insert(mine)
    one.run()
    again = one.insert(mine)
    one.run()
    assert one.tokens[first] == reference(sliding, mine)
    assert one.tokens[again] == one.tokens[first]
    assert one.cached[again] == len(mine) - 1
    longer = (*mine, *one.tokens[first], *prompt(2, 9))
    further = one.insert(longer)
    one.run()
    assert one.cached[further] == len(mine) + LENGTH
    assert one.tokens[further] == reference(sliding, longer)


@pytest.fixture(scope="module")
def stateful() -> Any:
    """A tiny mamba: its cache is a state, which cannot be cut back to a prefix."""
    sizes = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 256, "state_size": 64, "num_hidden_layers": 2}
    flags = {"conv_kernel": 4, "use_bias": False, "use_conv_bias": True, "time_step_rank": 4}
    mx.random.seed(0)
    model = mamba.Model(mamba.ModelArgs.from_dict({"model_type": "mamba", **sizes, **flags}))
    mx.eval(model.parameters())
    return model


def test_a_repeated_prompt_is_found_where_nothing_can_be_cut(stateful: Any) -> None:
    mine, one = prompt(1, 60), story(stateful, prompt_count_max=1)
    first = one.insert(mine)
    one.run()
    again = one.insert(mine)
    one.run()
    assert one.cached[again] == len(mine) - 1
    assert one.tokens[again] == one.tokens[first] == reference(stateful, mine)


@dataclass
class Counting:
    """A model that counts its passes over single tokens."""

    model: Any
    passes: int = 0

    def __call__(self, inputs: mx.array, **more: Any) -> Any:
        self.passes += inputs.shape[1] == 1
        return self.model(inputs, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def test_what_is_kept_of_a_batch_holds_no_more_than_itself(stateful: Any) -> None:
    one = story(stateful, prompt_count_max=1)
    for seed in range(8):
        one.insert(prompt(seed, 20), max_tokens=4 + seed)
    one.run()
    mx.synchronize()
    before = mx.get_active_memory()
    one.engine.drop()
    # Kept are eight states at their ends, eight at their prompts', of 2 layers each with 256 x 64 and 3 x 256 floats.
    state_bytes = 2 * (256 * 64 + 3 * 256) * 4
    assert 16 * state_bytes <= before - mx.get_active_memory() < 1.5 * 16 * state_bytes


def test_a_prompt_that_joins_needs_no_pass_of_its_own(tiny: Any) -> None:
    counting = Counting(tiny)
    one = story(counting)
    for seed in range(4):
        one.insert(prompt(seed, 33))
        for _ in range(3):
            before = counting.passes
            one.step()
            assert counting.passes - before <= 1


def test_what_does_not_fit_the_budget_waits_in_order(tiny: Any) -> None:
    one = story(tiny, kv_budget_tokens=100)
    for _ in range(3):
        one.insert(PROMPTS[2], max_tokens=40)
    last = one.step()
    assert (last.running_count, last.waiting_count) == (2, 1)
    one.run()
    assert [len(tokens) for tokens in one.tokens.values()] == [40, 40, 40]
    assert all(report.kv_tokens <= 100 for report in one.reports)


def test_the_cache_gives_way_to_admitted_requests(tiny: Any) -> None:
    one = story(tiny, kv_budget_tokens=100)
    one.insert(prompt(1, 30), max_tokens=10)
    one.run()
    assert one.reports[-1].cache_tokens == 40
    one.insert(prompt(2, 60), max_tokens=20)
    assert one.step().cache_tokens <= 20
    one.run()
    assert all(report.kv_tokens <= 100 for report in one.reports)


@pytest.mark.parametrize("max_tokens", [55, 20], ids=["a row that takes all", "a row that leaves little"])
def test_a_prompt_that_is_kept_beside_its_row_stays_within_the_budget(stateful: Any, max_tokens: int) -> None:
    one = story(stateful, kv_budget_tokens=100, prompt_count_max=1)
    one.insert(prompt(1, 20), max_tokens=4)
    one.run()
    assert one.reports[-1].cache_tokens
    one.insert(prompt(2, 45), max_tokens=max_tokens)
    one.run()
    assert max(report.kv_tokens for report in one.reports) <= 100
    assert set(one.finish.values()) == {"length"}


def test_a_step_takes_no_more_than_a_chunk_of_each_prompt(tiny: Any) -> None:
    one = story(tiny, prompt_count_max=2)
    for seed in range(4):
        one.insert(prompt(seed, 1200), max_tokens=2)
    one.run()
    taken = [report.prefill_tokens for report in one.reports]
    assert max(taken) <= 2 * 512
    assert sum(taken) == 4 * 1199
    assert set(one.finish.values()) == {"length"}


def test_logprobs_are_the_models_and_only_where_asked(tiny: Any) -> None:
    one = story(tiny)
    plain, asked = one.insert(PROMPTS[3], SAMPLED[5]), one.insert(PROMPTS[3], SAMPLED[5], top=5)
    one.run()
    assert one.tokens[plain] == one.tokens[asked]
    assert one.logprobs[plain] == []
    assert len(one.logprobs[asked]) == LENGTH
    tokens = one.tokens[asked]
    logits = tiny(mx.array([[*PROMPTS[3], *tokens[:-1]]]))[0, len(PROMPTS[3]) - 1 :].astype(mx.float32)
    wanted = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    for i, found in enumerate(one.logprobs[asked]):
        assert found.chosen == pytest.approx(wanted[i, tokens[i]].item(), abs=1e-3)
        assert len(found.top_ids) == 5
        assert list(found.top_values) == sorted(found.top_values, reverse=True)
        assert found.top_values[0] == pytest.approx(wanted[i].max().item(), abs=1e-3)


def test_others_may_run_once_in_each_step_that_decodes(tiny: Any) -> None:
    called: list[int] = []

    def call() -> None:
        called.append(len(one.reports))

    one = story(tiny, on_dispatch=call)
    one.insert(prompt(1, 1200), max_tokens=4)
    one.run()
    decoding = [number for number, report in enumerate(one.reports) if not report.prefill_tokens]
    assert called == decoding and len(decoding) == 5


@pytest.mark.parametrize("in_the_middle", [False, True])
def test_an_exception_in_a_step_loses_its_requests_and_nothing_else(tiny: Any, in_the_middle: bool) -> None:
    raise_at = {6}

    def raise_once() -> None:
        if len(one.reports) in raise_at:
            raise_at.clear()
            raise RuntimeError("injected")

    def hook(engine: Engine) -> Callable[[], None] | None:
        if in_the_middle:
            return raise_once
        raise_once()
        return None

    one = story(tiny, on_step=hook)
    first, second = one.insert(PROMPTS[5]), one.insert(PROMPTS[3])
    with pytest.raises(RuntimeError, match="injected"):
        one.run()
    waiting = one.insert(PROMPTS[1])
    assert sorted(one.engine.drop()) == [first, second, waiting]
    assert not one.engine.has_work
    after = one.insert(PROMPTS[5])
    one.run()
    assert one.tokens[after] == reference(tiny, PROMPTS[5])
