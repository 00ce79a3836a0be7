"""Sequences whose reader was lost, kept for the resume that may come. Pure but for what is kept, which is opaque.

Times are of a clock that the caller reads. README.md, "How a request travels".
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

PARKED_S = 60.0
# Younger ones are safe; older ones go first when an admitted request needs the room.
SAFE_S = 5.0


@dataclass(frozen=True, slots=True)
class Parked(Generic[T]):
    """`token_ids`: all that was generated, the last of which is not in the KV yet."""

    key: int
    request_id: str
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    kv_tokens: int
    since_s: float
    kept: T
    # Of its prompt, found in the prefix cache.
    cached_tokens: int = 0


class Parking(Generic[T]):
    """By request id, oldest first."""

    def __init__(self) -> None:
        self._parked: OrderedDict[str, Parked[T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._parked)

    @property
    def kv_tokens(self) -> int:
        """They count as if they ran: a resume must find its room."""
        return sum(one.kv_tokens for one in self._parked.values())

    def put(self, parked: Parked[T]) -> None:
        self._parked.pop(parked.request_id, None)
        self._parked[parked.request_id] = parked

    def take(self, request_id: str, prompt: Sequence[int], resumed: Sequence[int]) -> Parked[T] | None:
        """The sequence of this request, when the client's tokens are a beginning of it; it is not parked any more."""
        found = self._parked.pop(request_id, None)
        if found is None or found.prompt_token_ids != tuple(prompt):
            return None
        return found if found.token_ids[: len(resumed)] == tuple(resumed) else None

    def holds(self, request_id: str) -> bool:
        return request_id in self._parked

    def forget(self, request_id: str) -> None:
        """A resume of it was cancelled."""
        self._parked.pop(request_id, None)

    def remove(self, key: int) -> None:
        """Nobody will resume it: its client has left."""
        for request_id in [one.request_id for one in self._parked.values() if one.key == key]:
            del self._parked[request_id]

    def expire(self, now_s: float) -> None:
        for key in [key for key, one in self._parked.items() if now_s - one.since_s >= PARKED_S]:
            del self._parked[key]

    def safe_kv_tokens(self, now_s: float, mine: str) -> int:
        """Of those that no request may drive out; the request's own takes no room beside it."""
        return sum(one.kv_tokens for key, one in self._parked.items() if key != mine and now_s - one.since_s < SAFE_S)

    def kv_tokens_beside(self, mine: str) -> int:
        return sum(one.kv_tokens for key, one in self._parked.items() if key != mine)

    def give_way(self, now_s: float, mine: str) -> bool:
        """Lets the oldest go that is not safe any more, and not `mine`; False when there is none."""
        key = next((key for key, one in self._parked.items() if key != mine and now_s - one.since_s >= SAFE_S), None)
        if key is None:
            return False
        del self._parked[key]
        return True

    def clear(self) -> None:
        self._parked.clear()
