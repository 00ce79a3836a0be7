"""Where deployments stand, and since when: for people, metrics and the log."""

import logging
from collections.abc import Callable, Mapping

from thunderline.cluster import InstanceId
from thunderline.scheduler import measures
from thunderline.scheduler.values import DeploymentState, Standing, Wish

# States that only a human, or other files, end.
CLOSED = {DeploymentState.CRASH_LOOP, DeploymentState.IMPOSSIBLE}

log = logging.getLogger(__name__)


class Standings:
    """`served` are instances that were READY in this life of the scheduler."""

    def __init__(self) -> None:
        self._known: dict[InstanceId, tuple[Standing, float]] = {}
        self.served: frozenset[InstanceId] = frozenset()

    def note(
        self,
        standings: Mapping[InstanceId, Standing],
        wishes: Mapping[InstanceId, Wish],
        batching: Callable[[InstanceId], str],
        now_s: float,
    ) -> None:
        """After a pass. `batching` says how the requests of a READY one are batched."""
        for instance, standing in standings.items():
            before = self._known.get(instance)
            since_s = before[1] if before and before[0].state is standing.state else now_s
            if before is None or before[0].state is not standing.state:
                name = wishes[instance].spec.name
                told = {"deployment": name, "state": standing.state.name, "reason": standing.reason}
                if standing.state is DeploymentState.READY:
                    told["batching"] = batching(instance)
                log.info("deployment", extra=told)
                measures.show_state(name, standing.state)
            self._known[instance] = (standing, since_s)
        for gone in self._known.keys() - standings.keys():
            del self._known[gone]
        ready = {one for one, standing in standings.items() if standing.state is DeploymentState.READY}
        self.served = (self.served & standings.keys()) | ready

    def begin_anew(self, instance: InstanceId) -> None:
        """It was deployed again: whoever looks before the next pass must not be told what was before."""
        standing, _ = self._known.get(instance, (None, 0.0))
        if standing is not None and standing.state in CLOSED:
            del self._known[instance]

    def of(self, wish: Wish) -> tuple[Standing, float]:
        """One that no pass has seen yet is WAITING."""
        fresh = Standing(DeploymentState.WAITING, "it has just been deployed", "the next look")
        return self._known.get(wish.instance, (fresh, wish.fresh_since_s))
