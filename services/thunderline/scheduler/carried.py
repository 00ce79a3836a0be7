"""Which requests each rank has under way, and which it lost lately: whom its end has touched."""

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterator

from thunderline.cluster import RankId
from thunderline.cluster.errors import ClusterError, EngineReset

# A rank's end is written down within this time after its streams broke, also on a slow disk.
LOST_S = 60.0
LOST_COUNT_MAX = 4096


class Carried:
    """Streams break before the runner's view says why: a request counts for a while after it was lost."""

    def __init__(self) -> None:
        self._under_way: dict[RankId, Counter[str]] = {}
        self._lost: deque[tuple[float, RankId, str]] = deque(maxlen=LOST_COUNT_MAX)

    @contextlib.contextmanager
    def on(self, rank: RankId, request_id: str) -> Iterator[None]:
        """A request is under way for the time of the block; an error that may be resumed means that it was lost.

        But an engine that was made anew: its rank lives.
        """
        under_way = self._under_way.setdefault(rank, Counter())
        under_way[request_id] += 1
        try:
            yield
        except ClusterError as error:
            if error.resumable and not isinstance(error, EngineReset):
                self._lost.append((time.monotonic(), rank, request_id))
            raise
        except (asyncio.CancelledError, GeneratorExit):
            # A client leaves with the last token, maybe before we see the end.
            self._kept_by(rank, request_id)
            raise
        else:
            self._kept_by(rank, request_id)
        finally:
            under_way[request_id] -= 1
            if not under_way[request_id]:
                del under_way[request_id]
            if not under_way:
                self._under_way.pop(rank, None)

    def _kept_by(self, rank: RankId, request_id: str) -> None:
        """It came back to the same rank, and that lived: the rank has lost nothing."""
        if self._lost:
            kept = [one for one in self._lost if one[1:] != (rank, request_id)]
            self._lost = deque(kept, maxlen=LOST_COUNT_MAX)

    def counts(self) -> dict[RankId, int]:
        """Requests by rank."""
        while self._lost and self._lost[0][0] < time.monotonic() - LOST_S:
            self._lost.popleft()
        ids = {rank: set(under_way) for rank, under_way in self._under_way.items()}
        for _, rank, request_id in self._lost:
            ids.setdefault(rank, set()).add(request_id)
        return {rank: len(found) for rank, found in ids.items()}
