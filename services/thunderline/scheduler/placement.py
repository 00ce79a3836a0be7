"""Where a model runs: on one node, for now. Pure: the same inputs give the same placement on any machine."""

from collections.abc import Mapping
from dataclasses import dataclass

from thunderline.cluster import NodeId
from thunderline.scheduler.values import Audit, Spec, Verdict

# More KV than this helps no batch that one engine can run.
KV_TOKENS_MAX = 262_144
# Less than this is no service; a model with a shorter context needs only that.
KV_TOKENS_MIN = 8_192
# Requests of full length that run side by side; shorter ones are the rule, and 32 rows are the most that one batch has.
KV_CONTEXT_COUNT = 8
# Activations of a prefill chunk and the allocator's slack, as a share of the weights: 1.1 x the weights was seen.
ACTIVATION_SHARE = 0.1
ACTIVATION_BYTES_MIN = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Placed:
    node: NodeId
    kv_budget_tokens: int
    memory_bytes: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotPlaced:
    """`permanent`: not even an empty cluster could run it."""

    reasons: tuple[str, ...]
    permanent: bool


def place(spec: Spec, audits: Mapping[NodeId, Audit], reserved_bytes: Mapping[NodeId, int]) -> Placed | NotPlaced:
    """The first node, by id, on which weights, KV and activations fit into what is not promised to others.

    `audits` are of the nodes that hold the files; `reserved_bytes` what other epochs hold there.
    """
    rejected: list[str] = []
    permanent = True
    for node, audit in sorted(audits.items()):
        if audit.verdict is not Verdict.USABLE:
            rejected.append(f"{node}: {'; '.join(audit.problems) or 'the files are not there'}")
            permanent = permanent and audit.verdict is Verdict.UNUSABLE
            continue
        fixed = fixed_bytes(audit)
        free = audit.usable_memory_bytes - reserved_bytes.get(node, 0)
        tokens = kv_tokens(spec, audit, free - fixed)
        if tokens is not None:
            memory = fixed + tokens * audit.kv_bytes_per_token
            reason = (
                f"{node}: weights {_gib(audit.weight_bytes)} and {tokens} tokens of KV fit into {_gib(free)} of memory"
            )
            return Placed(node, tokens, memory, (reason, *rejected))
        least = fixed + kv_tokens_least(spec, audit) * audit.kv_bytes_per_token
        rejected.append(f"{node}: needs {_gib(least)}, has {_gib(free)} free of {_gib(audit.usable_memory_bytes)}")
        permanent = permanent and least > audit.usable_memory_bytes
    return NotPlaced(tuple(rejected), permanent and bool(rejected))


def fixed_bytes(audit: Audit) -> int:
    """Memory that a rank takes without any KV."""
    return audit.weight_bytes + max(ACTIVATION_BYTES_MIN, int(audit.weight_bytes * ACTIVATION_SHARE))


def kv_tokens_least(spec: Spec, audit: Audit) -> int:
    return spec.kv_budget_tokens or min(KV_TOKENS_MIN, audit.context_length_tokens or KV_TOKENS_MIN)


def kv_tokens(spec: Spec, audit: Audit, free_bytes: int) -> int | None:
    """Tokens of KV, of the memory that is free beside the weights; None when it is too little.

    Without a wish of the operator's: some full contexts, and no more than leaves a second such model its least.
    """
    least = kv_tokens_least(spec, audit)
    if audit.kv_bytes_per_token == 0:
        # Unknown cost: what is asked for, or the least.
        return least if free_bytes >= 0 else None
    room = free_bytes // audit.kv_bytes_per_token
    if room < least:
        return None
    if spec.kv_budget_tokens:
        return spec.kv_budget_tokens
    second = fixed_bytes(audit) + least * audit.kv_bytes_per_token
    shared = (free_bytes - second) // audit.kv_bytes_per_token
    # Where there is no room for two, the first has no reason to leave any.
    return min(kv_tokens_useful(audit), shared if shared >= least else room)


def kv_tokens_useful(audit: Audit) -> int:
    """More than this is not taken by default: it belongs to the next model."""
    return min(KV_TOKENS_MAX, KV_CONTEXT_COUNT * (audit.context_length_tokens or KV_TOKENS_MIN))


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
