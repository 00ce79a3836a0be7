"""Which waiting sequence may start, by KV. Pure.

Every admitted sequence has room for its whole prompt and answer, so that no burst of long prompts can kill the rank. In
order of arrival: a long one that waits is not overtaken for ever, because nobody behind it starts before it does.
"""

from collections.abc import Sequence

SEQUENCE_COUNT_MAX = 32


def padded_tokens(rows: Sequence[int]) -> int:
    """What a batch of these lengths holds: mlx-lm pads each row to the longest."""
    return len(rows) * max(rows, default=0)


def fits(running: Sequence[int], tokens: int, held_tokens: int, budget_tokens: int) -> bool:
    """Whether one of `tokens` may join those that run (each by its prompt + max_tokens), beside what is held."""
    return padded_tokens([*running, tokens]) + held_tokens <= budget_tokens
