"""The turns of a rotation, and the scheduler node's own certificate: `cluster rotate` begins, this goes on with it."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from thunderline.cluster.authorities import Turn, turned
from thunderline.cluster.errors import Unauthenticated
from thunderline.process import authority
from thunderline.process.entry import CannotStart
from thunderline.process.trust import Wallet
from thunderline.rpc.rosters import holders
from thunderline.v1 import discovery_pb2

LOOK_S = 1.0
SAY_EVERY_S = 60.0

TOLD = {
    Turn.SIGN: "every node trusts the next authority: it signs from now on",
    Turn.DROP: "every node has a certificate of the new authority: the former one is not trusted any more",
}

log = logging.getLogger(__name__)


class Rotating:
    """`settle_s`: a turn waits so long, lest a node is missed that the roster is about to show."""

    def __init__(self, home: Path, wallet: Wallet, roster: Callable[[], discovery_pb2.Roster], settle_s: float) -> None:
        self._home = home
        self._wallet = wallet
        self._roster = roster
        self._settle_s = settle_s
        self._due: Turn | None = None
        self._due_s = 0.0
        self._said_s = -SAY_EVERY_S

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            roster = self._roster()
            try:
                await asyncio.to_thread(self.look, roster, time.monotonic())
            except (OSError, CannotStart, Unauthenticated) as error:
                self._say(f"the cluster's certificates cannot be looked after: {error}")
            await asyncio.sleep(LOOK_S)

    def look(self, roster: discovery_pb2.Roster, now_s: float) -> None:
        """Blocking. Raises OSError, CannotStart, Unauthenticated."""
        if not self._is_founded():
            return
        with authority.changing(self._home):
            if why := authority.refresh(self._home, self._wallet):
                log.info("this node's certificate was renewed: %s", why)
            ours = authority.kept(self._home)
            if ours is None or len(ours.ring.trusted) == 1:
                self._due = None
                return
            turn = turned(ours.ring, holders(roster))[0] if roster.complete else Turn.WAIT
            if turn not in TOLD:
                self._due = None
                return
            if turn is not self._due:
                self._due, self._due_s = turn, now_s
            if now_s - self._due_s < self._settle_s:
                return
            authority.change(self._home, ours.turned(turn), self._wallet.cluster, self._wallet.now_s)
            log.info(TOLD[turn])
            self._due = None

    def _is_founded(self) -> bool:
        """Without a look at the lock: a node that belongs to no cluster has not even the folder."""
        return authority.kept(self._home) is not None

    def _say(self, text: str) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s >= SAY_EVERY_S:
            self._said_s = now_s
            log.warning(text)
