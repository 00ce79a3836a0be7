"""Who asks again and again where a deployment stands, and for a chat beside it: do the two say the same?"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from installation import DEMO, Installation

# So a disagreement that one look saw is bounded to well under a second by those around it.
LOOK_EVERY_S = 0.3
# A chat that a crash met goes on in the next epoch, or until the circuit is open.
CHAT_S = 120.0
READY, POISONED = "READY", "request_poisoned"


@dataclass(frozen=True)
class Look:
    """The state before and after a chat, and the HTTP status that this got. Times of the monotonic clock."""

    begun_s: float
    before: str
    status: int
    message: str
    ended_s: float
    after: str

    @property
    def told(self) -> tuple[tuple[float, str], tuple[float, str]]:
        return (self.begun_s, self.before), (self.ended_s, self.after)

    def says(self, state: str) -> bool:
        """Whether the chat's end is what this state promises."""
        return (state == READY) == (self.status == 200)

    @property
    def agreed_s(self) -> list[float]:
        """When state and chat said the same."""
        return [at_s for at_s, state in self.told if self.says(state)]


def disagreement_s(look: Look, looks: Sequence[Look]) -> float:
    """For how long the state promised something else than the chat got that was sent then.

    A state may turn while a chat is on its way: a crash meets it, or the deployment is READY a moment later. So it
    counts until anybody was told the other state; where chat and state differ at its end too, from the last agreement
    before it to the first after it.
    """
    if look.says(look.before):
        return 0.0
    if look.says(look.after):
        turned_s = (at_s for one in looks for at_s, state in one.told if at_s >= look.begun_s and look.says(state))
        return min(turned_s, default=look.ended_s) - look.begun_s
    agreed = [at_s for one in looks for at_s in one.agreed_s]
    before_s = max((at_s for at_s in agreed if at_s <= look.begun_s), default=look.begun_s)
    after_s = min((at_s for at_s in agreed if at_s >= look.ended_s), default=look.ended_s)
    return after_s - before_s


def longest_disagreement_s(looks: Sequence[Look]) -> float:
    return max((disagreement_s(look, looks) for look in looks), default=0.0)


class Onlooker(threading.Thread):
    """For the time of a block. Looks do not wait for each other: a chat may take long."""

    def __init__(self, up: Installation) -> None:
        super().__init__(daemon=True)
        self._up = up
        self._over = threading.Event()
        self.looks: list[Look] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self.join(CHAT_S)

    def run(self) -> None:
        asyncio.run(self._look_on())

    async def _look_on(self) -> None:
        again = asyncio.Event()
        async with httpx.AsyncClient(base_url=self._up.url, timeout=CHAT_S) as client, asyncio.TaskGroup() as looks:
            while not self._over.is_set():
                again.clear()
                looks.create_task(self._look(client, again))
                # After a disagreement at once: how long it lasts is what counts.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await again.wait()

    async def _look(self, client: httpx.AsyncClient, again: asyncio.Event) -> None:
        body = {"model": DEMO, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        begun_s = time.monotonic()
        before = await _state(client)
        answer = await client.post("/v1/chat/completions", json=body)
        error: dict[str, Any] = {} if answer.status_code == 200 else answer.json()["error"]
        # After what has come, and before another question.
        ended_s = time.monotonic()
        after = await _state(client)
        if error.get("code") == POISONED:
            # Refused for what it is itself: it tells nothing of the deployment.
            return
        look = Look(begun_s, before, answer.status_code, error.get("message", ""), ended_s, after)
        self.looks.append(look)
        if not look.agreed_s:
            again.set()


async def _state(client: httpx.AsyncClient) -> str:
    answer = await client.get("/readyz")
    return str(answer.json()["deployments"][0]["state"])
