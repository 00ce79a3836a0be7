"""Whether a rank hangs, from its map: work, and no step for longer than the rank itself allows. Pure.

Times of looks are of an `AwakeClock`: while this process did not tick either (the machine slept, or starved us),
nobody is late.
"""

from dataclasses import dataclass, replace

from thunderline.cluster.rank_map import RankMark, Stand

LOOK_EVERY_S = 0.5
# Work that was sent is taken up by a rank that lives within this time.
UNTAKEN_S = 10.0
# A rank that lives and is not dialled in dials within a second.
UNATTACHED_S = 10.0


@dataclass(frozen=True, slots=True)
class Watched:
    """Where a rank stood at the last looks. All times are awake seconds but `entered_s`, which is its own word."""

    step: int
    stand: Stand
    entered_s: float
    since_s: float
    # Since when work has waited for an idle one; that whoever sent it has left changes nothing.
    untaken_s: float | None = None
    unattached_s: float | None = None


def look(before: Watched | None, mark: RankMark, has_work: bool, attached: bool, now_s: float) -> Watched:
    """`has_work`: somebody waits for this rank's tokens. `attached`: it is dialled in."""
    now = Watched(mark.step, mark.stand, mark.entered_s, now_s)
    if before is not None and (before.step, before.stand, before.entered_s) == (now.step, now.stand, now.entered_s):
        now = replace(now, since_s=before.since_s, untaken_s=before.untaken_s)
    if mark.stand is Stand.IDLE and has_work and now.untaken_s is None:
        now = replace(now, untaken_s=now_s)
    if not attached:
        since_s = before.unattached_s if before is not None and before.unattached_s is not None else now_s
        now = replace(now, unattached_s=since_s)
    return now


def why(watched: Watched, mark: RankMark, now_s: float) -> str | None:
    """What is wrong with it, in words; None while it is well."""
    stood_s = now_s - watched.since_s
    if watched.stand is not Stand.IDLE and mark.deadline_s and stood_s > mark.deadline_s - mark.entered_s:
        return f"no step for {stood_s:.0f} s: it is in step {watched.step}, {watched.stand.name.lower()}"
    if watched.untaken_s is not None and now_s - watched.untaken_s > UNTAKEN_S:
        return f"no step for {now_s - watched.untaken_s:.0f} s after step {watched.step}: it does not take its work"
    if watched.unattached_s is not None and now_s - watched.unattached_s > UNATTACHED_S:
        return f"it has not dialled in for {now_s - watched.unattached_s:.0f} s, after step {watched.step}"
    return None


def is_idle(watched: Watched) -> bool:
    """Nothing is asked of it."""
    return watched.stand is Stand.IDLE and watched.untaken_s is None
