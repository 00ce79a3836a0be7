"""What an end looks like that others have met too: its likely cause, and what to do. Pure.

Numbers are of issues where it was seen. What only several ranks can meet comes with them.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signature:
    """`pattern` is looked for in what is said of an end, and in what the process printed last."""

    pattern: re.Pattern[str]
    cause: str
    remedy: str
    seen_in: tuple[str, ...]

    @property
    def likely(self) -> str:
        """The cause, and where it was seen."""
        return f"{self.cause} ({', '.join(self.seen_in)})"


# The first that is found counts.
SIGNATURES = (
    Signature(
        re.compile(r"\[metal::malloc\] Resource limit \(\d+\) exceeded"),
        "too many live Metal buffers",
        "deploy it with a smaller --kv-budget-tokens; the next epoch begins with none",
        ("mlx-lm#831", "mlx-lm#1672", "mlx-lm#1332"),
    ),
    Signature(
        re.compile(r"Caused GPU Timeout Error|kIOGPUCommandBufferCallbackErrorTimeout"),
        "the GPU waited for longer than about 5 s within one command buffer",
        "let nothing else use the GPU, and send fewer long prompts at once",
        ("exo#1620", "mlx#3830"),
    ),
    Signature(
        # A stack of C++, of Objective-C, or the exception that is thrown there.
        re.compile(r"mlx::core::Event::wait|\[Event::wait\]|waitUntilSignaledValue:timeoutMS:"),
        "Metal's GPU synchronisation under heavy load",
        "send fewer long prompts at once; the next epoch serves again",
        ("exo#1804",),
    ),
    Signature(
        re.compile(r"\bfence_wait\b"),
        "a deadlock of Metal's fences",
        "restart the machine if the next epoch hangs too",
        ("mlx#3142", "mlx#3830", "mlx#4475"),
    ),
)


def match(text: str) -> Signature | None:
    return next((one for one in SIGNATURES if one.pattern.search(text)), None)
