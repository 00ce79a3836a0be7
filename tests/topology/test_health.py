"""The health of a link: its table, stories on a timeline of probes, and that it does not flap."""

import itertools
import random

import pytest

from thunderline.cluster.links import RTT_LIMITS_US, LinkState
from thunderline.cluster.media import Medium
from thunderline.topology.health import (
    DEGRADED_AFTER_COUNT,
    DOWN_AFTER_COUNT,
    DOWN_AFTER_REFUSED_COUNT,
    NEXT,
    RTT_COUNT,
    UP_AFTER_COUNT,
    Health,
    Signal,
    answered,
    unanswered,
)

S = LinkState
TB, ETH, WIFI, VPN = Medium.THUNDERBOLT, Medium.ETHERNET, Medium.WIFI, Medium.VPN
PERIOD_S = 2.0
MISS, REFUSED = "-", "x"


def probed(readings: str, medium: Medium = TB) -> list[Health | None]:
    """After each probe: an RTT in ms, - for none, x for a refusal; "3*40" for three."""
    health: Health | None = None
    found = []
    for word in readings.split():
        count, _, what = word.rpartition("*")
        for _ in range(int(count or 1)):
            if what in (MISS, REFUSED):
                health = unanswered(health, refused=what == REFUSED)
            else:
                health = answered(health, int(float(what) * 1000), medium)
            found.append(health)
    return found


def state_after(readings: str, medium: Medium = TB) -> LinkState | None:
    last = probed(readings, medium)[-1]
    return last.state if last else None


@pytest.mark.parametrize(("state", "signal"), list(itertools.product(S, Signal)), ids=lambda one: one.name)
def test_every_state_answers_every_signal(state: S, signal: Signal) -> None:
    after = NEXT[state][signal]
    if signal is Signal.LOST:
        assert after is S.DOWN
    elif signal is Signal.MISSED:
        assert after is state
    elif signal is Signal.STEADILY_FAST:
        assert after is S.UP
    elif signal is Signal.STEADILY_SLOW:
        assert after is S.DEGRADED
    else:
        assert after is not S.DOWN


# Probes of a cable, whose limit is 5 ms: what it is after them.
STORIES: dict[str, tuple[str, LinkState | None]] = {
    "without an answer there is no link": ("20*-", None),
    "a refusal is no answer": ("20*x", None),
    "the first answer makes it": ("5*- 0.05", S.UP),
    "a first one that is slow says so": ("40", S.DEGRADED),
    "the limit itself is not above it": ("5 5 5 5", S.UP),
    "two slow ones are nothing": ("0.05 40 40", S.UP),
    "three are": ("0.05 40 40 40", S.DEGRADED),
    "in a row": ("0.05 40 40 0.05 40 40", S.UP),
    "a missed one does not end the row": ("0.05 40 - 40 40", S.DEGRADED),
    "four fast ones do not bring it back": ("0.05 3*40 4*0.05", S.DEGRADED),
    "five do": ("0.05 3*40 5*0.05", S.UP),
    "in a row, too": ("0.05 3*40 4*0.05 40 4*0.05", S.DEGRADED),
    "one in the margin ends that row": ("0.05 3*40 4*0.05 4.5 4*0.05", S.DEGRADED),
    "and a missed one": ("0.05 3*40 4*0.05 - 4*0.05", S.DEGRADED),
    "any number in the margin does not bring it back": ("0.05 3*40 100*4.5", S.DEGRADED),
    "nor does it take it down": ("0.05 100*4.5", S.UP),
    "two missed ones are nothing": ("0.05 - -", S.UP),
    "three are the end": ("0.05 - - -", S.DOWN),
    "of a slow one too": ("40 - - -", S.DOWN),
    "in a row, once more": ("0.05 - - 0.05 - -", S.UP),
    "what comes back is what its first answer says": ("0.05 9*- 0.05", S.UP),
    "also if that is slow": ("0.05 9*- 40", S.DEGRADED),
    "what was slow before is forgotten then": ("40 9*- 0.05", S.UP),
    "a peer whose topology restarts is not gone": ("0.05 14*x", S.UP),
    "nor fast because of it": ("40 4*0.05 x 0.05", S.DEGRADED),
    "for ever it is": ("0.05 15*x", S.DOWN),
    "a refusal has crossed the link": ("0.05 - - x - -", S.UP),
}


@pytest.mark.parametrize(("readings", "expected"), STORIES.values(), ids=STORIES.keys())
def test_a_cable(readings: str, expected: LinkState | None) -> None:
    assert state_after(readings) is expected


# Medium, a steady RTT in ms: what it is from the first probe on.
STEADY: dict[str, tuple[Medium, float, LinkState]] = {
    "Wi-Fi at 30 ms is UP": (WIFI, 30, S.UP),
    "Wi-Fi at 60 ms is not": (WIFI, 60, S.DEGRADED),
    "Ethernet at 9 ms is UP": (ETH, 9, S.UP),
    "a cable at 9 ms is not": (TB, 9, S.DEGRADED),
    "a VPN has no limit": (VPN, 900, S.UP),
    "nor has what nobody knows": (Medium.OTHER, 900, S.UP),
    "nor has one's own machine": (Medium.LOOPBACK, 900, S.UP),
}


@pytest.mark.parametrize(("medium", "rtt_ms", "expected"), STEADY.values(), ids=STEADY.keys())
def test_a_steady_link(medium: Medium, rtt_ms: float, expected: LinkState) -> None:
    assert {health.state for health in probed(f"50*{rtt_ms}", medium) if health} == {expected}


def test_a_good_wifi_of_30_ms_comes_back() -> None:
    assert state_after("30 3*70", WIFI) is S.DEGRADED
    assert state_after("30 3*70 5*30", WIFI) is S.UP


@pytest.mark.parametrize("after_s", [0.01, 1.0, 1.99], ids=lambda after_s: f"{after_s} s after a probe")
def test_a_cable_that_slows_is_degraded_within_8_s_and_comes_back(after_s: float) -> None:
    history = probed("10*0.05 3*40 5*0.05")
    states = [health.state for health in history if health]
    slowed_s = 9 * PERIOD_S + after_s
    assert states.index(S.DEGRADED) * PERIOD_S - slowed_s <= 8
    assert states[-1] is S.UP
    # Both its own times and what it counts as by them are those of now.
    degraded = history[states.index(S.DEGRADED)]
    assert degraded is not None and degraded.rtt_us == 40_000
    assert history[-1] is not None and history[-1].rtt_us == 50


def test_a_first_late_answer_is_forgotten_with_the_second() -> None:
    rtts = [health.rtt_us for health in probed("7 0.05 0.05") if health]
    assert rtts == [7_000, 50, 50]


def test_an_outage_ends_what_was_measured_before() -> None:
    last = probed("0.05 0.06 3*- 0.07")[-1]
    assert last is not None and last.rtts_us == (70,)


def test_the_last_five_are_kept() -> None:
    last = probed("1 2 3 4 5 6")[-1]
    assert last is not None and last.rtts_us == (2_000, 3_000, 4_000, 5_000, 6_000) and last.rtt_us == 4_000
    assert RTT_COUNT == 5


def changes(rtts_ms: list[float]) -> int:
    states = [health.state for health in probed(" ".join(f"{one:.3f}" for one in rtts_ms)) if health]
    return sum(one is not other for one, other in itertools.pairwise(states))


@pytest.mark.parametrize("seed", range(20), ids=lambda seed: f"seed {seed}")
@pytest.mark.parametrize("width", [0.1, 0.19], ids=lambda width: f"{width:.0%} around the limit")
def test_jitter_around_the_limit_does_not_flap(seed: int, width: float) -> None:
    """It gets DEGRADED once and stays so, for 2,000 probes (more than an hour)."""
    chance = random.Random(seed)
    assert changes([5 * chance.uniform(1 - width, 1 + width) for _ in range(2_000)]) <= 1


@pytest.mark.parametrize("seed", range(5), ids=lambda seed: f"seed {seed}")
@pytest.mark.parametrize("slow_share", [0.1, 0.3, 0.4, 0.5, 0.7], ids=lambda share: f"{share:.0%} slow")
def test_wild_jitter_changes_a_state_seldom(seed: int, slow_share: float) -> None:
    """Answers of 0.1 and 40 ms by chance, the worst there is: a change in 20 probes (40 s) or fewer."""
    chance = random.Random(seed)
    assert changes([40 if chance.random() < slow_share else 0.1 for _ in range(2_000)]) <= 100


@pytest.mark.parametrize("seed", range(20), ids=lambda seed: f"seed {seed}")
def test_counts_and_times_stay_bounded(seed: int) -> None:
    chance = random.Random(seed)
    words = [chance.choice([MISS, REFUSED, "0.1", "4.5", "40"]) for _ in range(300)]
    for health in probed(" ".join(words)):
        if health is None:
            continue
        assert 1 <= len(health.rtts_us) <= RTT_COUNT
        assert health.fast_count <= UP_AFTER_COUNT and health.slow_count <= DEGRADED_AFTER_COUNT
        assert health.silent_count <= DOWN_AFTER_COUNT and health.refused_count <= DOWN_AFTER_REFUSED_COUNT
        assert not (health.fast_count and health.slow_count)


def test_other_limits_may_be_set() -> None:
    limits_us = {**RTT_LIMITS_US, TB: 50_000}
    assert answered(None, 40_000, TB, limits_us).state is S.UP
