"""What a search looks at: the nodes that may take part, by number, and how they are joined. Pure."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from thunderline.cluster import NodeId
from thunderline.scheduler.placing.capacity import Capacity
from thunderline.scheduler.placing.dialling import Cost, Dialling, Quality, describe
from thunderline.scheduler.placing.memory import Needs, least_tokens
from thunderline.scheduler.placing.rdma import Rails, node_problem, rail_key, speed_gbps
from thunderline.scheduler.placing.rings import Joined
from thunderline.scheduler.placing.values import Backend, Model, Node, Policy, Situation, Strategy
from thunderline.scheduler.placing.wording import gib


class Method(NamedTuple):
    strategy: Strategy
    backend: Backend


class Grounds:
    """Of a plan. `nodes` are numbered by their ids, so that the order in which they come in does not matter."""

    def __init__(self, situation: Situation, nodes: Sequence[Node], model: Model, policy: Policy) -> None:
        self.situation = situation
        self.model = model
        self.policy = policy
        self.nodes = sorted(nodes, key=lambda one: one.id)
        self.ids = [one.id for one in self.nodes]
        self.words = [one.word for one in self.nodes]
        self.numbers = {node: number for number, node in enumerate(self.ids)}
        self.free = [one.free_bytes for one in self.nodes]
        self.needs = Needs(model, least_tokens(model, policy))
        self.dialling = Dialling(situation, self.ids, policy)
        rails = situation.graph.rails
        # A hostfile has its own order of cables.
        self.rails = Rails(rails if policy.hostfile else sorted(rails, key=rail_key), self.nodes)

    @cached_property
    def capacity(self) -> Capacity:
        return Capacity(self.needs, self.free)

    @cached_property
    def free_words(self) -> list[str]:
        """By node: "a 96.00 GiB"."""
        return [f"{word} {gib(bytes_)}" for word, bytes_ in zip(self.words, self.free, strict=True)]

    @cached_property
    def slow_words(self) -> dict[tuple[int, int], str]:
        """Of the ways that are below their minimums: which link it is, and why."""
        found = {}
        for (one, other), way in self.dialling.ways.items():
            if way.cost.quality.is_below:
                i, j = self.numbers[one], self.numbers[other]
                why = self.dialling.below(way.link)
                found[i, j] = f"{self.words[i]} → {self.words[j]} over {describe(way.link)}: {why}"
        return found

    @cached_property
    def by_links(self) -> Joined:
        """Over TCP, as a ring's and NCCL's sockets go."""
        return Joined(
            len(self.ids),
            {(self.numbers[i], self.numbers[j]): way.cost for (i, j), way in self.dialling.ways.items()},
        )

    @cached_property
    def by_rails(self) -> Joined:
        """Over RDMA; more Gb/s are better."""
        costs = {}
        for (one, other), rails in self.rails.usable.items():
            cost = Cost(Quality(False, -speed_gbps(rails), False), 0)
            i, j = self.numbers[one], self.numbers[other]
            costs[i, j] = costs[j, i] = cost
        return Joined(len(self.ids), costs)

    def joined(self, backend: Backend) -> Joined:
        return self.by_rails if backend is Backend.JACCL else self.by_links

    @cached_property
    def hearing(self) -> list[int]:
        """By node: those (bits) that can dial it."""
        found = [0] * len(self.ids)
        for i, j in self.dialling.links:
            found[self.numbers[j]] |= 1 << self.numbers[i]
        return found

    def heard_by(self, number: int, members: Sequence[int]) -> int:
        """How many of the members can dial it, each counted once."""
        return sum(self.hearing[number] >> i & 1 for i in members if i != number)

    def problem(self, number: int, backend: Backend) -> str:
        """Why a node cannot take part over a backend; "" where it can."""
        node = self.nodes[number]
        if node.backends is None:
            return f"{node.word} has not said yet what its MLX offers"
        if backend not in node.backends:
            return f"the MLX of {node.word} offers no {backend.value}"
        return node_problem(node) if backend is Backend.JACCL else ""

    def needs_coordinator(self, members: Sequence[int], backend: Backend) -> bool:
        """Whether rank 0 has to be dialled before anything else works."""
        if backend is Backend.NCCL:
            return True
        return backend is Backend.JACCL and not all(self.nodes[i].takes_side_channel for i in members)

    def coordinator(self, members: Sequence[int], listener: int) -> str:
        return self.dialling.coordinator(self.ids[listener], [self.ids[i] for i in members if i != listener])

    def pair(self, i: int, j: int) -> tuple[NodeId, NodeId]:
        return self.ids[i], self.ids[j]

    def evidence(self, i: int, j: int) -> str:
        """ "a → b: " and what is known of every address."""
        return f"{self.words[i]} → {self.words[j]}: {self.dialling.evidence(self.pair(i, j))}"
