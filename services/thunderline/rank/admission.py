"""Which waiting sequences may start, by KV. Pure.

Every admitted sequence has room for its whole prompt and answer, so that no burst of long prompts can kill the rank.
In order of arrival: a long one that waits is not overtaken for ever, because nobody behind it starts before it does.
"""

from collections.abc import Sequence

SEQUENCE_COUNT_MAX = 32


def admitted_count(waiting_tokens: Sequence[int], running_tokens: int, running_count: int, budget_tokens: int) -> int:
    """How many of the waiting (each with its prompt + max_tokens, first in first out) may start now."""
    count = 0
    for tokens in waiting_tokens:
        if running_count + count >= SEQUENCE_COUNT_MAX or running_tokens + tokens > budget_tokens:
            break
        running_tokens += tokens
        count += 1
    return count
