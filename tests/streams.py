"""HTTP streams that are under way, for tests that break something under them."""

import json
import threading
from typing import Any

import httpx

from installation import DEMO, Installation, until

# No end token: each stream is long, whatever its seed says.
BODY = {
    "model": DEMO,
    "prompt": "Tell me a very long story.",
    "max_tokens": 200,
    "temperature": 1,
    "logit_bias": {"0": -100, "2": -100},
    "stream": True,
}


class Stream(threading.Thread):
    """One HTTP stream, and how it ended."""

    def __init__(self, url: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.url, self.body = url, {**BODY, "seed": seed}
        self.events = 0
        self.end = ""
        self.error: dict[str, Any] = {}

    def run(self) -> None:
        try:
            with httpx.stream("POST", f"{self.url}/v1/completions", json=self.body, timeout=90) as answer:
                if answer.status_code != 200:
                    self.end = f"status {answer.status_code}"
                    return
                for line in answer.iter_lines():
                    self._line(line)
            self.end = self.end or "closed"
        except httpx.TransportError as error:
            self.end = f"broken: {type(error).__name__}"

    def _line(self, line: str) -> None:
        if line == "data: [DONE]":
            self.end = "finished"
        elif line.startswith('data: {"error"'):
            self.end = "typed error"
            self.error = json.loads(line.removeprefix("data: "))["error"]
        elif line.startswith("data: "):
            self.events += 1


def four_unfinished(up: Installation) -> list[Stream]:
    return unfinished(up, 4)


def unfinished(up: Installation, count: int) -> list[Stream]:
    """Streams that have begun; fails when one is at its end already."""
    streams = [Stream(up.url, seed) for seed in range(count)]
    for stream in streams:
        stream.start()
    until("a token on each stream", lambda: all(stream.events >= 2 for stream in streams), 60)
    assert not any(stream.end for stream in streams), "the fault came too late"
    return streams
