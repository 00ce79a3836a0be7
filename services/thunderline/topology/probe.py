"""One probe of one address of a peer: a burst of echoes over one connection, the best of them. Blocking."""

import errno as errnos
import os
import time
from dataclasses import dataclass

from thunderline.cluster import NodeId
from thunderline.cluster.addresses import parse
from thunderline.cluster.graph import Outcome, outcome_of
from thunderline.cluster.paths import Path
from thunderline.topology.echo_messages import (
    ANSWER_BYTES,
    BURST_COUNT,
    NONCE_BYTES,
    Answer,
    Ask,
    BadMessage,
    Kind,
    Speaker,
    nonce_of,
    pack_ask,
    unpack_answer,
    with_nonce,
)
from thunderline.topology.ends import Ends
from thunderline.topology.sockets import (
    dialled,
    end_at_once,
    errno_of,
    left_s,
    own_address,
    receive,
    wait_in_kernel,
)


@dataclass(frozen=True, slots=True)
class Crossed:
    """`path` without the way that the peer's own probes come by."""

    rtt_us: int
    local_address: str
    path: Path


@dataclass(frozen=True, slots=True)
class NotCrossed:
    outcome: Outcome
    errno: int


@dataclass(frozen=True, slots=True)
class Aim:
    """Whom to probe, and where."""

    peer: NodeId
    address: str
    echo_port: int


def probe(speaker: Speaker, aim: Aim, ends: Ends, timeout_s: float) -> Crossed | NotCrossed:
    """The first answer has to come within `timeout_s`, those after it only make it better; all lasts no longer than
    twice as long."""
    deadline_s = time.monotonic() + timeout_s
    best_us: int | None = None
    try:
        with dialled(aim.address, aim.echo_port, deadline_s) as connection:
            end_at_once(connection)
            wait_in_kernel(connection, left_s(deadline_s))
            own = str(parse(own_address(connection)))
            seed = os.urandom(NONCE_BYTES - 1)
            answer: Answer | None = None
            told, ask = b"", pack_ask(Ask(Kind.ECHO, speaker, seed + b"\0"))
            try:
                for number in range(BURST_COUNT):
                    message = with_nonce(ask, seed + bytes([number]))
                    sent_ns = time.perf_counter_ns()
                    connection.sendall(message)
                    data = receive(connection, ANSWER_BYTES, deadline_s)
                    if best_us is None:
                        left_s(deadline_s)
                    rtt_us = max((time.perf_counter_ns() - sent_ns) // 1000, 1)
                    if answer is None:
                        told, answer = data, unpack_answer(data)
                        if answer.kind is not Kind.ECHO:
                            raise BadMessage("an answer to another question")
                        if answer.speaker != Speaker(aim.peer, speaker.cluster):
                            return NotCrossed(Outcome.WRONG_NODE, 0)
                    if data != with_nonce(told, nonce_of(message)):
                        raise BadMessage("an answer to another question")
                    best_us = rtt_us if best_us is None else min(best_us, rtt_us)
            except OSError:
                if best_us is None:
                    raise
            assert answer is not None and best_us is not None
            path = Path(ends.leaves(aim.address, own), answer.arrives, answer.returns)
            return Crossed(best_us, own, path)
    except BadMessage:
        return NotCrossed(Outcome.FAILED, errnos.EPROTO)
    except OSError as error:
        number = errno_of(error)
        return NotCrossed(outcome_of(number), number)
