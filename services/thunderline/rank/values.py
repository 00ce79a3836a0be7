"""What crosses the engine's border: plain values, nothing of MLX."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thunderline.rank.sampler import Params


@dataclass(frozen=True, slots=True)
class Insert:
    """A new sequence; validated by the runner. `resume_token_ids` were generated before and count."""

    key: int
    request_id: str
    prompt_token_ids: tuple[int, ...]
    resume_token_ids: tuple[int, ...]
    params: "Params"
    max_tokens: int
    logprobs: bool = False
    top_logprob_count: int = 0
    ignore_eos: bool = False
    # No new request, also where nothing of it was delivered yet.
    resume: bool = False

    @property
    def kv_tokens(self) -> int:
        """The most that it will ever hold."""
        return len(self.prompt_token_ids) + self.max_tokens


@dataclass(frozen=True, slots=True)
class Logprobs:
    chosen: float
    top_ids: tuple[int, ...]
    top_values: tuple[float, ...]


@dataclass(slots=True)
class News:
    """What a step gave to one sequence. `finish` is "", "stop" or "length"."""

    key: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Logprobs] = field(default_factory=list)
    finish: str = ""
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    step: int
    news: tuple[News, ...]
    prefill_tokens: int
    duration_s: float
    running_count: int
    waiting_count: int
    kv_tokens: int
    cache_tokens: int
    parked_count: int = 0
