"""How much of the waiting prompts one engine step takes. Pure.

A step decodes for everybody, then processes one chunk of a few prompts; it should take a fixed budget, so that no long
prompt stalls those who are being answered. Tokens for all = measured rate x (budget - decode), in equal shares.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

# While somebody is answered, and while nobody is: then only a newcomer has to wait for the step's end.
BUDGET_S, BUDGET_ALONE_S = 0.6, 0.8
# A step that can end every prompt may take this long: a few tokens that were left over would cost a step of their own,
# most of which is the same for two tokens as for fifty.
BUDGET_TO_END_S = 0.9
# Long prompts are processed one after the other, which answers each as soon as can be; a shorter one that would end
# first goes beside a longer one, two in all.
LONG_COUNT_MAX, PROMPT_COUNT_MAX = 2, 8
# A prompt with no more than this left is short, whatever its share of a step.
SHORT_TOKENS = 64
CHUNK_TOKENS_MIN, CHUNK_TOKENS_MAX = 8, 512
# Before anything was measured: a slow machine's rate, so that the first chunk is not a stall.
RATE_START_TOKENS_PER_S = 150.0
# One odd measurement (a page fault, a busy machine) moves the rate by no more than this.
RATE_RISE_MAX, RATE_FALL_MAX = 1.5, 0.6
RATE_MEASURED_TOKENS_MIN = 8
# However slow decoding is, prompts get this share of the budget: else they would never be answered.
DECODE_SHARE_MAX = 0.6


@dataclass(frozen=True, slots=True)
class Plan:
    """`taken`: places among the waiting prompts that begin now. `chunk_tokens`: of each prompt, in this step."""

    taken: tuple[int, ...]
    chunk_tokens: int


@dataclass(frozen=True, slots=True)
class Pace:
    """What is known of this machine's speed."""

    rate_tokens_per_s: float = RATE_START_TOKENS_PER_S
    decode_s: float = 0.0
    is_measured: bool = False

    def room_tokens(self, decoding: bool) -> float:
        """Prompt tokens that the next step can process within its budget."""
        if not decoding:
            return self.rate_tokens_per_s * BUDGET_ALONE_S
        return self.rate_tokens_per_s * (BUDGET_S - min(self.decode_s, DECODE_SHARE_MAX * BUDGET_S))

    def prefill_s(self, prompt_count: int) -> float:
        """What a step's share of so many prompts may take when the rate holds."""
        smallest_s = CHUNK_TOKENS_MIN * min(prompt_count, PROMPT_COUNT_MAX) / self.rate_tokens_per_s
        return max(BUDGET_ALONE_S, smallest_s) if prompt_count else 0.0

    def plan(self, begun: Sequence[int], waiting: Sequence[int], decoding: bool, count_max: int) -> Plan:
        """For the next step, from the tokens that each prompt has left; `count_max` is what the audit allows.

        In order of arrival, but short prompts pass long ones that wait, and so does a long one that is shorter than
        what the one under way has left. What is left never grows, so nobody is passed for ever.
        """
        room = self.room_tokens(decoding)
        count_max = max(1, min(count_max, PROMPT_COUNT_MAX, int(room / CHUNK_TOKENS_MIN)))
        count, taken = len(begun), []
        longs = [tokens for tokens in begun if tokens > max(SHORT_TOKENS, room / len(begun))]
        for place, tokens in enumerate(waiting):
            if count >= count_max:
                break
            is_long = tokens > max(SHORT_TOKENS, room / (count + 1))
            if not is_long or not longs or (len(longs) < LONG_COUNT_MAX and tokens < longs[0]):
                taken.append(place)
                count += 1
                longs += [tokens] if is_long else []
        left = [*begun, *(waiting[place] for place in taken)]
        longest = max(left, default=0)
        # Shorter ones are padded to it.
        ends = bool(left) and longest * len(left) <= self._room_to_end_tokens(decoding)
        share = longest if ends else int(room / max(1, count))
        return Plan(tuple(taken), max(CHUNK_TOKENS_MIN, min(CHUNK_TOKENS_MAX, share)))

    def _room_to_end_tokens(self, decoding: bool) -> float:
        return self.rate_tokens_per_s * (BUDGET_TO_END_S - (self.decode_s if decoding else 0.0))

    def measured(self, prompt_tokens: int, prompt_s: float, decode_s: float) -> "Pace":
        """After a step. Decoding falls slowly in memory, so that one quick step promises nothing; the first rate is
        taken as it is, however far it is from what was assumed.
        """
        pace = replace(self, decode_s=max(0.9 * self.decode_s, decode_s))
        if prompt_tokens < RATE_MEASURED_TOKENS_MIN or prompt_s <= 0:
            return pace
        if not self.is_measured:
            return replace(pace, rate_tokens_per_s=prompt_tokens / prompt_s, is_measured=True)
        mean = (self.rate_tokens_per_s + prompt_tokens / prompt_s) / 2
        low, high = self.rate_tokens_per_s * RATE_FALL_MAX, self.rate_tokens_per_s * RATE_RISE_MAX
        return replace(pace, rate_tokens_per_s=min(high, max(low, mean)))
