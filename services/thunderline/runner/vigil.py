"""Watches READY ranks for a step that does not come, and has an idle one show now and then that it still can."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from thunderline.cluster import RankId
from thunderline.cluster.errors import InstanceFailed
from thunderline.cluster.ranks import RankState
from thunderline.process.awake import AwakeClock
from thunderline.runner import hang
from thunderline.runner.exit_cause import RANK_HUNG
from thunderline.runner.generation import Generation
from thunderline.runner.hang import LOOK_EVERY_S, Watched
from thunderline.runner.known_rank import KnownRank
from thunderline.runner.rank_life import Signal
from thunderline.v1 import cluster_pb2, rank_pb2

CANARY = "canary"

log = logging.getLogger(__name__)


class Vigil:
    """Belongs to the event loop. `ranks` gives those of this node."""

    def __init__(self, ranks: Callable[[], Iterable[KnownRank]], canary_every_s: float) -> None:
        self._ranks = ranks
        self._canary_every_s = canary_every_s
        self._clock = AwakeClock()
        self._watched: dict[RankId, Watched] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.look(time.monotonic())
            await asyncio.sleep(LOOK_EVERY_S)

    def look(self, monotonic_s: float) -> None:
        now_s = self._clock.tick(monotonic_s)
        before, self._watched = self._watched, {}
        for rank in self._ranks():
            mark = rank.process.mark() if rank.process is not None and rank.state is RankState.READY else None
            if mark is None:
                continue
            attached = rank.outbox is not None
            seen = hang.look(before.get(rank.id), mark, bool(rank.generations), attached, now_s)
            self._watched[rank.id] = seen
            if (wrong := hang.why(seen, mark, now_s)) is not None:
                rank.fail(Signal.HUNG, RANK_HUNG, wrong)
            elif hang.is_idle(seen) and now_s - seen.since_s >= self._canary_every_s:
                _send_canary(rank)


def _send_canary(rank: KnownRank) -> None:
    """One token for nobody: from now on it has work, and whether it does it shows whether it lives."""
    if not rank.is_ready or rank.words is None:
        return
    wish = cluster_pb2.Generation(request_id=CANARY, ignore_eos=True)
    insert = rank_pb2.Insert(request_id=CANARY, prompt_token_ids=[0], max_tokens=1, ignore_eos=True)
    try:
        rank.insert(insert, Generation(wish, [0], 1, rank.words))
    except InstanceFailed as error:
        log.warning("a canary cannot be sent", extra={"rank": str(rank.id), "why": error.message})
