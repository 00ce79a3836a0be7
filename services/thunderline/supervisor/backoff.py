"""How long a role that died stays dead. Pure."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Backoff:
    """0.2 s, doubled at each death up to 10 s; a life of 10 s starts over."""

    wait_min_s: float
    wait_max_s: float
    reset_s: float
    deaths: int = 0

    def died(self, lived_s: float) -> tuple[float, "Backoff"]:
        """Seconds to wait before the next start, and the state after it."""
        deaths = 0 if lived_s >= self.reset_s else self.deaths
        wait_s = min(self.wait_max_s, self.wait_min_s * 2 ** min(deaths, 32))
        return wait_s, replace(self, deaths=deaths + 1)
