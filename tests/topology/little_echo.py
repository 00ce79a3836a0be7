"""A real echo on loopback, and what it has heard."""

import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from thunderline.cluster import NodeId
from thunderline.topology.echo import Echo
from thunderline.topology.echo_messages import Speaker, speaker
from thunderline.topology.ends import Ends
from thunderline.topology.permits import Permits
from thunderline.topology.probe import Aim, Crossed, NotCrossed, probe
from thunderline.topology.probes import Echoed

HERE = "127.0.0.1"
TIMEOUT_S = 0.5
A, B, C = (NodeId(str(uuid.UUID(int=number))) for number in (1, 2, 3))
OURS = "ours"


@dataclass
class LittleEcho:
    """Of node B; A is a member, too."""

    echo: Echo
    port: int
    ends: Ends
    permits: Permits
    heard: list[Echoed] = field(default_factory=list)

    def probe(
        self, peer: NodeId = B, own: Speaker | None = None, address: str = HERE, timeout_s: float = TIMEOUT_S
    ) -> Crossed | NotCrossed:
        return probe(own or speaker(A, OURS), Aim(peer, address, self.port), self.ends, timeout_s)

    def raw(self) -> socket.socket:
        return socket.create_connection((HERE, self.port), timeout=10)


@contextlib.contextmanager
def little_echo(host: str = HERE, timeout_s: float = TIMEOUT_S) -> Iterator[LittleEcho]:
    heard: list[Echoed] = []
    ends, permits = Ends({}), Permits()
    echo = Echo(speaker(B, OURS), ends, permits, timeout_s, heard.append)
    echo.members = frozenset({A})
    port = echo.listen(host, 0)
    accepting = threading.Thread(target=echo.accept)
    accepting.start()
    try:
        yield LittleEcho(echo, port, ends, permits, heard)
    finally:
        echo.stop()
        accepting.join(10)
        assert not accepting.is_alive()
        until("its connections are gone", lambda: echo.open_count == 0)
        ends.close()


def until(what: str, holds: "object") -> None:
    """Threads have no event to wait for."""
    assert callable(holds)
    deadline_s = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline_s, f"not within 10 s: {what}"
        time.sleep(0.005)
