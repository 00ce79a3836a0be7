"""Who may send bytes to the echo to measure the bandwidth: whoever asked over gRPC, once, for some seconds."""

import secrets
import threading

from thunderline.cluster.errors import Full
from thunderline.topology.echo_messages import NONCE_BYTES

STREAM_COUNT = 4
# From the permit to the last of its connections.
USED_WITHIN_S = 5.0
# All of a measurement: 10 s of sending, and as much for what is still on a slow way.
MEASUREMENT_S = 25.0


class Permits:
    """One at a time. Asked from any thread; times are of the monotonic clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._permit = b""
        self._given_s = 0.0
        self._left_count = self._open_count = 0

    def give(self, now_s: float) -> bytes:
        """Raises Full while another measurement uses, or may still use, its own."""
        with self._lock:
            wait_s = self._given_s + (MEASUREMENT_S if self._open_count else USED_WITHIN_S) - now_s
            if (self._open_count or self._left_count) and wait_s > 0:
                raise Full("this node takes part in another measurement", retry_after_s=max(wait_s, 1.0))
            self._permit, self._given_s = secrets.token_bytes(NONCE_BYTES), now_s
            self._left_count, self._open_count = STREAM_COUNT, 0
            return self._permit

    def take(self, permit: bytes, now_s: float) -> bool:
        """For one connection; it has to be given back when that ends."""
        with self._lock:
            in_time = now_s - self._given_s <= USED_WITHIN_S
            if not (self._left_count and in_time and secrets.compare_digest(permit, self._permit)):
                return False
            self._left_count -= 1
            self._open_count += 1
            return True

    def give_back(self, permit: bytes) -> None:
        with self._lock:
            if permit == self._permit:
                self._open_count -= 1
