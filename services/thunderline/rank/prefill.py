"""How much of the waiting prompts one engine step takes. Pure.

A step decodes for everybody, then processes one chunk of at most two prompts; it should take a fixed budget, so that
no long prompt stalls those who are being answered. Chunk = measured rate x (budget - decode) / prompts.
"""

from dataclasses import dataclass, replace

BUDGET_S = 0.6
PROMPT_COUNT_MAX = 2
CHUNK_TOKENS_MIN, CHUNK_TOKENS_MAX = 8, 512
# Before anything was measured: a slow machine's rate, so that the first chunk is not a stall.
RATE_START_TOKENS_PER_S = 150.0
# One odd measurement (a page fault, a busy machine) moves the rate by no more than this.
RATE_RISE_MAX, RATE_FALL_MAX = 1.5, 0.6
RATE_MEASURED_TOKENS_MIN = 8
# However slow decoding is, prompts get this share of the budget: else they would never be answered.
DECODE_SHARE_MAX = 0.6


@dataclass(frozen=True, slots=True)
class Pace:
    """What is known of this machine's speed."""

    rate_tokens_per_s: float = RATE_START_TOKENS_PER_S
    decode_s: float = 0.0

    def chunk_tokens(self, prompt_count: int) -> int:
        """Tokens of each of `prompt_count` prompts for the next step."""
        if prompt_count <= 0:
            return CHUNK_TOKENS_MAX
        budget_s = BUDGET_S - min(self.decode_s, DECODE_SHARE_MAX * BUDGET_S)
        wanted = int(self.rate_tokens_per_s * budget_s / min(prompt_count, PROMPT_COUNT_MAX))
        return max(CHUNK_TOKENS_MIN, min(CHUNK_TOKENS_MAX, wanted))

    def measured(self, prompt_tokens: int, prompt_s: float, decode_s: float) -> "Pace":
        """After a step. Decoding falls slowly in memory, so that one quick step promises nothing."""
        pace = replace(self, decode_s=max(0.9 * self.decode_s, decode_s))
        if prompt_tokens < RATE_MEASURED_TOKENS_MIN or prompt_s <= 0:
            return pace
        mean = (self.rate_tokens_per_s + prompt_tokens / prompt_s) / 2
        low, high = self.rate_tokens_per_s * RATE_FALL_MAX, self.rate_tokens_per_s * RATE_RISE_MAX
        return replace(pace, rate_tokens_per_s=min(high, max(low, mean)))
