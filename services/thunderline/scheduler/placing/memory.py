"""What a rank of a model needs, and how much KV it gets. Pure; bytes and tokens."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from thunderline.scheduler.placing.values import Model, Policy

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
class Need:
    """Of one rank: weights and activations, and what a token of KV takes."""

    fixed_bytes: int
    kv_bytes: int

    def of(self, tokens: int) -> int:
        return self.fixed_bytes + tokens * self.kv_bytes


def with_activations(weight_bytes: int) -> int:
    return weight_bytes + max(ACTIVATION_BYTES_MIN, int(weight_bytes * ACTIVATION_SHARE))


def least_tokens(model: Model, policy: Policy) -> int:
    return policy.kv_budget_tokens or min(KV_TOKENS_MIN, model.context_length_tokens or KV_TOKENS_MIN)


def useful_tokens(model: Model) -> int:
    """More than this is not taken by default: it belongs to the next model."""
    return min(KV_TOKENS_MAX, KV_CONTEXT_COUNT * (model.context_length_tokens or KV_TOKENS_MIN))


def budget_tokens(model: Model, policy: Policy, needs: Sequence[Need], free: Sequence[int]) -> int | None:
    """Tokens of KV that every rank has room for; None when that is too little. `free`: of each rank's node.

    Without a wish of the operator's: some full contexts, and no more than leaves a second such model its least.
    """
    least = least_tokens(model, policy)
    pairs = list(zip(needs, free, strict=True))
    if any(need.of(least) > bytes_ for need, bytes_ in pairs):
        return None
    if policy.kv_budget_tokens:
        return policy.kv_budget_tokens
    # Of unknown cost: what is asked for, or the least. A rank may have layers that keep none.
    costly = [(need, bytes_) for need, bytes_ in pairs if need.kv_bytes]
    if not costly:
        return least
    room = min((bytes_ - need.fixed_bytes) // need.kv_bytes for need, bytes_ in costly)
    shared = min((bytes_ - need.fixed_bytes - need.of(least)) // need.kv_bytes for need, bytes_ in costly)
    # Where there is no room for two, the first has no reason to leave any.
    return min(useful_tokens(model), shared if shared >= least else room)


class Needs:
    """What ranks of one model need, by the layers that they have. `tokens`: of KV, at least."""

    def __init__(self, model: Model, tokens: int) -> None:
        self.model = model
        self.tokens = tokens
        self.layer_count = model.layer_count
        kv = model.layer_kv_bytes or (0,) * model.layer_count
        # Of the layers before each.
        self._weights = [0, *accumulate(model.layer_bytes)]
        self._kv = [0, *accumulate(kv)]
        self._first_bytes = model.embedding_bytes
        self._last_bytes = model.head_bytes + (model.embedding_bytes if model.is_tied else 0)
        self._other_bytes = model.other_bytes
        self._ends: dict[int, list[int]] = {}
        # Layers that are all alike are the rule, and need no search for the lightest.
        self._is_uniform = len({*model.layer_bytes}) == 1 and len({*model.layer_kv_bytes}) <= 1
        self._lightest: dict[int, int] = {}
        # Layers that fit, by the bytes of so many and what is free: sets of many sizes ask for the same nodes.
        self._found: dict[tuple[Callable[[Needs, int], int], int], int] = {}

    @property
    def weight_bytes(self) -> int:
        """Of the whole model."""
        return self._weights[-1] + self.model.embedding_bytes + self.model.head_bytes + self._other_bytes

    def part(self, first: int, end: int) -> Need:
        """Of layers [first, end), with what their ends bring."""
        weights = self._weights[end] - self._weights[first] + self._other_bytes
        if first == 0:
            weights += self._first_bytes
        if end == self.layer_count:
            # A tied head finds its embedding there if the first layer is there too.
            weights += self.model.head_bytes if first == 0 else self._last_bytes
        return Need(with_activations(weights), self._kv[end] - self._kv[first])

    def whole(self) -> Need:
        return self.part(0, self.layer_count)

    def tensor(self, rank_count: int) -> Need:
        """Of each rank: its part of every layer, both ends whole."""
        whole, kv_whole = self.model.tensor_whole_bytes, self.model.tensor_kv_whole_bytes
        divided, kv = self._weights[-1] - whole, _part_of(self._kv[-1] - kv_whole, rank_count)
        weights = self.weight_bytes - divided + _part_of(divided, rank_count)
        return Need(with_activations(weights), kv_whole + kv)

    def bytes(self, first: int, end: int) -> int:
        """`part`, with the least KV."""
        return self.part(first, end).of(self.tokens)

    def first_max(self, free_bytes: int) -> int:
        """Layers that fit, the embedding beside them."""
        return self._most(Needs._from_first, free_bytes)

    def last_max(self, free_bytes: int) -> int:
        """Layers that fit, norm and head beside them."""
        return self._most(Needs._to_last, free_bytes)

    def middle_max(self, free_bytes: int) -> int:
        """Layers that fit without an end; of unlike layers the lightest in a row."""
        return self._most(Needs._lightest_bytes, free_bytes)

    def ends(self, free_bytes: int) -> list[int]:
        """By the first layer: how far the layers from there on fit, whatever the ends of the model bring."""
        if free_bytes not in self._ends:
            found, end = [], 0
            for first in range(self.layer_count):
                # With a later first layer the same end fits as well.
                end = max(end, first)
                while end < self.layer_count and self._plain_bytes(first, end + 1) <= free_bytes:
                    end += 1
                found.append(end)
            self._ends[free_bytes] = found
        return self._ends[free_bytes]

    def _plain_bytes(self, first: int, end: int) -> int:
        kv_bytes = self._kv[end] - self._kv[first]
        weights = self._weights[end] - self._weights[first] + self._other_bytes
        return with_activations(weights) + self.tokens * kv_bytes

    def pipeline_bytes(self, rank_count: int) -> int:
        """Of so many ranks together, at least."""
        weights = self.weight_bytes + self._other_bytes * (rank_count - 1)
        weights += self.model.embedding_bytes if self.model.is_tied and rank_count > 1 else 0
        slack = max(rank_count * ACTIVATION_BYTES_MIN, with_activations(weights) - weights - rank_count)
        return weights + slack + self.tokens * self._kv[-1]

    def _most(self, bytes_of: "Callable[[Needs, int], int]", free_bytes: int) -> int:
        """The largest count that fits; none fits where one does not."""
        key = (bytes_of, free_bytes)
        if key not in self._found:
            self._found[key] = bisect_right(
                range(1, self.layer_count + 1), free_bytes, key=lambda count: bytes_of(self, count)
            )
        return self._found[key]

    def _from_first(self, count: int) -> int:
        return self.bytes(0, count)

    def _to_last(self, count: int) -> int:
        return self.bytes(self.layer_count - count, self.layer_count)

    def _lightest_bytes(self, count: int) -> int:
        """Of so many layers in a row without an end, one or more, at least."""
        if count not in self._lightest:
            starts = range(1 if self._is_uniform else self.layer_count - count + 1)
            weights = min([self._weights[start + count] - self._weights[start] for start in starts])
            kv = min([self._kv[start + count] - self._kv[start] for start in starts])
            self._lightest[count] = with_activations(weights + self._other_bytes) + self.tokens * kv
        return self._lightest[count]


def _part_of(bytes_: int, count: int) -> int:
    """The largest of so many parts."""
    return -(-bytes_ // count)
