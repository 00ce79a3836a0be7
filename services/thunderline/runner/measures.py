"""The runner's Prometheus metrics."""

import time

from prometheus_client import Counter, Gauge, Histogram

from thunderline.cluster import RankId
from thunderline.cluster.ranks import RankState
from thunderline.v1 import rank_pb2

RANK_STATE = Gauge("thunderline_rank_state", "1 for the state that a rank is in.", ["instance", "rank", "state"])
RESTARTS = Counter("thunderline_rank_restarts_total", "Ranks that ended without being told to.", ["cause"])
STEP = Histogram("thunderline_step_seconds", "Engine steps.", buckets=(0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5))
CANCELLED = Counter("thunderline_sequences_cancelled_total", "Sequences dropped before their end.")
GENERATED = Counter("thunderline_generated_tokens_total", "Tokens that ranks of this node made.")
PREFILLED = Counter("thunderline_prefill_tokens_total", "Prompt tokens that ranks of this node processed.")
RUNNING = Gauge("thunderline_sequences_running", "Sequences that a rank works on or holds for.", ["instance"])
FOUND = Counter("thunderline_prefix_cache_hit_tokens_total", "Prompt tokens that were found in the prefix cache.")
KEPT = Gauge("thunderline_prefix_cache_tokens", "Tokens of KV that the prefix cache holds.", ["instance"])
PARKED = Gauge("thunderline_sequences_parked", "Sequences kept for a resume.", ["instance"])
KV = Gauge("thunderline_kv_tokens", "Tokens of KV held, prefix cache included.", ["instance"])


def show_state(rank: RankId, state: RankState) -> None:
    for one in RankState:
        RANK_STATE.labels(rank.instance, str(rank.rank), one.name).set(one is state)


# Steps of a rank are shown together, so often, and when it has nothing to do: each by itself cost a fifth of a
# token's CPU here.
SHOW_EVERY_S = 0.5
_unshown: dict[RankId, list[rank_pb2.StepReport]] = {}
_shown_s: dict[RankId, float] = {}


def show_step(rank: RankId, step: rank_pb2.StepReport) -> None:
    steps = _unshown.setdefault(rank, [])
    steps.append(step)
    now_s = time.monotonic()
    is_busy = bool(step.running_count or step.waiting_count)
    if is_busy and now_s - _shown_s.get(rank, 0.0) < SHOW_EVERY_S:
        return
    _shown_s[rank] = now_s
    for one in steps:
        # A report outside a step has no duration.
        if one.duration_us:
            STEP.observe(one.duration_us / 1e6)
    sequences = [one for report in steps for one in report.sequences]
    PREFILLED.inc(sum(one.prefill_tokens for one in steps))
    GENERATED.inc(sum(len(one.token_ids) for one in sequences))
    RUNNING.labels(rank.instance).set(step.running_count + step.waiting_count)
    KV.labels(rank.instance).set(step.kv_tokens)
    KEPT.labels(rank.instance).set(step.cache_tokens)
    PARKED.labels(rank.instance).set(step.parked_count)
    steps.clear()


def ended(rank: RankId) -> None:
    """What it reported last and nobody was shown is not kept."""
    _unshown.pop(rank, None)
    _shown_s.pop(rank, None)


def forget(rank: RankId) -> None:
    """Instances come and go: their labels go with them."""
    for one in RankState:
        RANK_STATE.remove_by_labels({"instance": rank.instance, "rank": str(rank.rank), "state": one.name})
    for gauge in (RUNNING, KV, KEPT, PARKED):
        gauge.remove_by_labels({"instance": rank.instance})
