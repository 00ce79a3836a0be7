"""Everything that a node's topology tells over time, and when: kept from outside the node, over its restarts."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from lab.seen import Holds, Topology, told
from thunderline.v1 import topology_pb2, topology_pb2_grpc

AGAIN_S = 0.02
LOOK_EVERY_S = 0.5
CLOSED_S = 5.0


@dataclass(frozen=True)
class Look:
    """`at_s`: monotonic. An empty topology while nobody tells."""

    at_s: float
    topology: Topology


class Watching:
    """`is_there`: whether the role listens; then it is dialled, by a channel of its own for each of its lives."""

    def __init__(self, is_there: Callable[[], bool], dial: Callable[[], grpc.Channel]) -> None:
        self._is_there, self._dial = is_there, dial
        self._changed = threading.Condition()
        self._looks: list[Look] = []
        self._call: Any = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def since(self, since_s: float) -> list[Look]:
        """What was told at that moment, and all after it."""
        with self._changed:
            looks = list(self._looks)
        before = [one for one in looks if one.at_s <= since_s]
        return before[-1:] + looks[len(before) :]

    def until(self, what: str, holds: Holds, timeout_s: float, since_s: float = 0.0) -> Look:
        """The first look from that moment on of which it holds. Fails with what was told last."""
        end_s = time.monotonic() + timeout_s
        while True:
            # In this order: what comes meanwhile is seen the next time.
            left_s = end_s - time.monotonic()
            looks = self.since(since_s)
            if found := next((one for one in looks if holds(one.topology)), None):
                return found
            if left_s <= 0:
                last = told(looks[-1].topology) if looks else "nothing was told"
                raise AssertionError(f"not within {timeout_s:g} s: {what}\n{last}")
            with self._changed:
                self._changed.wait(min(left_s, LOOK_EVERY_S))

    def _watch(self) -> None:
        while not self._closed.wait(AGAIN_S):
            if self._is_there():
                with self._dial() as channel:
                    self._follow(topology_pb2_grpc.TopologyServiceStub(channel))
                self._note(Topology())

    def _follow(self, stub: Any) -> None:
        with contextlib.suppress(grpc.RpcError):
            self._call = stub.WatchTopology(topology_pb2.WatchTopologyRequest())
            for response in self._call:
                self._note(response.topology)

    def _note(self, topology: Topology) -> None:
        with self._changed:
            self._looks.append(Look(time.monotonic(), topology))
            self._changed.notify_all()

    def close(self) -> None:
        self._closed.set()
        end_s = time.monotonic() + CLOSED_S
        # It may be about to begin the next call.
        while self._thread.is_alive() and time.monotonic() < end_s:
            if self._call is not None:
                self._call.cancel()
            self._thread.join(AGAIN_S)
