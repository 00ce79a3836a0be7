"""Clusters, models and wishes from a seed: quick to make, many of them with something to place on several nodes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from random import Random

from scheduler.placing.scenes import CAN, CANNOT, CUDA, GIB, LINUX, MAC, link, node
from thunderline.cluster import NodeId
from thunderline.cluster.graph import Graph
from thunderline.cluster.links import Link, LinkState
from thunderline.cluster.machine_facts import RdmaPortState, RdmaState
from thunderline.cluster.media import Medium
from thunderline.cluster.rails import Rail, RailEnd
from thunderline.scheduler.placing.dialling import Cost, Quality
from thunderline.scheduler.placing.values import Backend, Files, Model, Node, Policy, Situation, Strategy

NAMES = "abcdefghijkl"
MEDIA = (Medium.THUNDERBOLT, Medium.ETHERNET, Medium.WIFI, Medium.OTHER, Medium.VPN)
RTTS_MS = (0.3, 0.6, 4.0, 8.0, 30.0)
STATES = (LinkState.UP, LinkState.UP, LinkState.UP, LinkState.DEGRADED, LinkState.DOWN)


def drawn_node(random: Random, name: str) -> Node:
    memory_gib = random.randint(4, 20)
    return node(
        name,
        memory_gib,
        reserved_bytes=random.choice((0, 0, 0, random.randint(0, memory_gib))) * GIB,
        backends=random.choice((LINUX, *[MAC] * 6, CUDA, frozenset(Backend), None)),
        rdma=random.choice((RdmaState.ENABLED,) * 5 + (RdmaState.DISABLED,)),
        files=random.choice((Files.HELD, Files.HELD, Files.ABSENT)),
        takes_side_channel=random.random() < 0.7,
        memory_bytes_per_s=random.choice((0, 100 * GIB, 200 * GIB)),
    )


def drawn_links(random: Random, one: str, other: str, share: float) -> list[Link]:
    """None, one or two, each with an address of its own."""
    found = []
    host = 16 * NAMES.index(one) + NAMES.index(other)
    for place in range(2):
        medium = random.choice(MEDIA)
        address = f"100.64.{place}.{host}" if medium is Medium.VPN else f"10.{place}.0.{host}"
        if random.random() < share:
            found.append(link(one, other, address, medium, random.choice(RTTS_MS), random.choice(STATES)))
    return found


def rail_of(one: str, other: str, number: int, is_active: bool = True) -> Rail:
    """Each cable at ports of its own."""
    state = RdmaPortState.ACTIVE if is_active else RdmaPortState.DOWN
    ends = [
        RailEnd(NodeId(name), f"rdma_en{16 * number + NAMES.index(peer)}", f"en{number}", "", "", state)
        for name, peer in ((one, other), (other, one))
    ]
    return Rail(ends[0], ends[1], speed_gbps=40 if number else 80)


def scene(seed: int, count_max: int = 5) -> tuple[Situation, Model, Policy]:
    random = Random(seed)
    return cluster(random, count_max), model(random), policy(random)


def cluster(random: Random, count_max: int) -> Situation:
    """Settled long ago."""
    names = NAMES[: random.choice((1, *range(2, count_max + 1), *range(2, count_max + 1)))]
    share = random.choice((0.2, 0.5, 0.9, 0.9))
    rails = [
        rail_of(i, j, number, random.random() < 0.8)
        for i, j in combinations(names, 2)
        for number in range(random.choice((0, 0, 1, 1, 2)))
    ]
    links = [one for pair in permutations(names, 2) for one in drawn_links(random, *pair, share)]
    return Situation(tuple(drawn_node(random, name) for name in names), Graph(links=tuple(links), rails=tuple(rails)))


def model(random: Random) -> Model:
    count = random.choice((1, 2, *range(4, 13)))
    sizes = [random.randint(1, 3) * GIB for _ in range(count)]
    heads = random.choice(((12, 12), (8, 2), (9, 3)))
    return Model(
        tuple(sizes),
        embedding_bytes=random.randint(0, 3) * GIB,
        head_bytes=random.randint(0, 2) * GIB,
        is_tied=random.random() < 0.5,
        layer_kv_bytes=(random.choice((0, 4096, 65_536)),) * count,
        head_count=heads[0],
        kv_head_count=heads[1],
        activation_bytes=8192,
        context_length_tokens=random.choice((0, 2048, 32_768)),
        pipeline=random.choice((*[CAN] * 6, CANNOT)),
        tensor=random.choice((*[CAN] * 3, CANNOT)),
    )


def policy(random: Random) -> Policy:
    return Policy(
        kv_budget_tokens=random.choice((0, 0, 0, 1000, 50_000)),
        requires_fast=random.random() < 0.25,
        strategy=random.choice((*[None] * 5, Strategy.TENSOR, Strategy.PIPELINE)),
        backend=random.choice((*[None] * 9, *Backend)),
        node_count_min=random.choice((1, 1, 2, 3)),
    )


def costs(pairs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Cost]:
    """All the same."""
    return dict.fromkeys(pairs, Cost(Quality(False, 1, False), 500))


@dataclass(frozen=True)
class More:
    """What is added to a cluster."""

    memory_gib: dict[NodeId, int]
    links: tuple[Link, ...]
    rails: tuple[Rail, ...]
    node: Node | None


def more(random: Random, here: Situation) -> More:
    """Memory, links (also to a newcomer, who may have none), a rail."""
    names = [str(one.id) for one in here.nodes]
    newcomer = NAMES[len(names)] if random.random() < 0.5 else ""
    pairs = list(permutations([*names, *([newcomer] if newcomer else [])], 2))
    chosen = random.sample(pairs, min(len(pairs), random.randint(0, 4)))
    links = [
        link(i, j, f"10.9.{NAMES.index(i)}.{NAMES.index(j)}", random.choice(MEDIA), random.choice((0.2, 9.0)))
        for i, j in chosen
    ]
    rails = [rail_of(min(pair), max(pair), 7) for pair in chosen[:1]]
    memory = {one.id: random.randint(1, 30) for one in here.nodes if random.random() < 0.3}
    return More(memory, tuple(links), tuple(rails), drawn_node(random, newcomer) if newcomer else None)


def richer(seed: int, here: Situation) -> Situation:
    added = more(Random(seed), here)
    found = [
        replace(one, memory_bytes=(one.memory_bytes or 0) + added.memory_gib.get(one.id, 0) * GIB) for one in here.nodes
    ]
    found += [added.node] if added.node else []
    graph = here.graph
    graph = replace(graph, links=(*graph.links, *added.links), rails=(*graph.rails, *added.rails))
    return replace(here, nodes=tuple(found), graph=graph)


def shuffled(seed: int, here: Situation) -> Situation:
    """The same in another order."""
    random, graph = Random(seed), here.graph
    nodes, links, rails = list(here.nodes), list(graph.links), list(graph.rails)
    random.shuffle(nodes)
    random.shuffle(links)
    random.shuffle(rails)
    return replace(here, nodes=tuple(nodes), graph=replace(graph, links=tuple(links), rails=tuple(rails)))
