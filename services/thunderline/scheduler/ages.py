"""How long epochs have lived while we were awake: a machine that slept makes none of them late. Pure."""

from collections.abc import Iterable

from thunderline.cluster import InstanceId
from thunderline.process.awake import AwakeClock
from thunderline.scheduler.values import Wish


class Ages:
    """Of each instance the epoch that lives, since this scheduler saw it first. Looks come at least once a second."""

    def __init__(self) -> None:
        self._clock = AwakeClock()
        self._since: dict[InstanceId, tuple[int, float]] = {}

    def look(self, wishes: Iterable[Wish], monotonic_s: float) -> dict[InstanceId, float]:
        """Awake seconds."""
        now_s = self._clock.tick(monotonic_s)
        before, self._since = self._since, {}
        for wish in wishes:
            if epoch := wish.current:
                number, since_s = before.get(wish.instance, (epoch.number, now_s))
                self._since[wish.instance] = (epoch.number, since_s if number == epoch.number else now_s)
        return {instance: now_s - since_s for instance, (_, since_s) in self._since.items()}
