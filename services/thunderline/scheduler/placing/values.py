"""What a placement is decided on, and what comes out of it. Pure values; bytes are of memory."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from thunderline.cluster import NodeId
from thunderline.cluster.graph import Graph
from thunderline.cluster.links import RTT_LIMITS_US, Link, LinkId
from thunderline.cluster.machine_facts import RdmaState
from thunderline.cluster.media import Medium
from thunderline.cluster.rails import Rail


class Strategy(Enum):
    """How the work is divided."""

    WHOLE = "whole"  # One node has all of it.
    TENSOR = "tensor"  # Each rank has a part of every layer.
    PIPELINE = "pipeline"  # Each rank has some of the layers.


class Backend(Enum):
    """Of mlx.distributed, by its own names."""

    RING = "ring"
    JACCL = "jaccl"
    NCCL = "nccl"


class Files(Enum):
    HELD = 1
    ABSENT = 2  # They can be fetched.
    UNUSABLE = 3  # `file_problem` says why: nothing that is tried again would help.


@dataclass(frozen=True, slots=True)
class Node:
    """A member of the cluster, ALIVE or not, with what is known of it."""

    id: NodeId
    # For people; "" where it is not known. Machines of one make may have one name.
    name: str = ""
    is_name_shared: bool = False
    # For ranks: the lesser of Metal's working set and 75% of RAM, or what the config says. None: not told yet.
    memory_bytes: int | None = None
    # What other epochs hold of it, older ones of the same deployment too.
    reserved_bytes: int = 0
    is_alive: bool = True
    alive_for_s: float = math.inf
    files: Files = Files.HELD
    file_problem: str = ""
    # What its own probe of MLX offers. None: not told yet.
    backends: frozenset[Backend] | None = None
    rdma: RdmaState = RdmaState.UNKNOWN
    # Interfaces that are known to have no IPv4 address, from which an RDMA device would get its GID.
    without_ipv4: frozenset[str] = frozenset()
    # Whether its MLX lets JACCL's exchange run over our gRPC; without, rank 0 must be dialable.
    takes_side_channel: bool = True
    # Memory bandwidth, for the estimate; 0: not known.
    memory_bytes_per_s: int = 0
    # By which a hostfile may name it, beside its name and id.
    addresses: tuple[str, ...] = ()

    @property
    def free_bytes(self) -> int:
        return max(0, (self.memory_bytes or 0) - self.reserved_bytes)

    @property
    def word(self) -> str:
        return f"{self.name} {self.id[:8]}".strip() if self.is_name_shared or not self.name else self.name


@dataclass(frozen=True, slots=True)
class Measured:
    """Of a link, newer than the graph's own figures; 0: not measured."""

    rtt_us: int = 0
    bits_per_s: int = 0


@dataclass(frozen=True, slots=True)
class Situation:
    """A cluster at one moment. Nothing depends on the order of its parts."""

    nodes: tuple[Node, ...]
    graph: Graph = field(default_factory=Graph)
    # Whether discovery knows all members; which nodes have not told of their links the graph says itself.
    is_complete: bool = True
    measured: Mapping[LinkId, Measured] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ability:
    """Whether the engine can split an architecture in one way; `problem` says why not. None: not tried yet."""

    can: bool | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of a model without loading it. No name: nothing is decided by one."""

    layer_bytes: tuple[int, ...]
    # Where the first layer is.
    embedding_bytes: int = 0
    # Where the last layer is.
    head_bytes: int = 0
    # On every rank: norms, and what else stands outside the layers.
    other_bytes: int = 0
    # The head is the embedding once more: both ends need it.
    is_tied: bool = False
    # Of one token, by layer; empty where it is not known.
    layer_kv_bytes: tuple[int, ...] = ()
    head_count: int = 0
    kv_head_count: int = 0
    # Other sizes that a tensor split divides, by what they are: ("groups of the feed-forward part", 172).
    also_divided: tuple[tuple[str, int], ...] = ()
    # Of one token between two layers.
    activation_bytes: int = 0
    # 0: not known.
    context_length_tokens: int = 0
    pipeline: Ability = Ability()
    tensor: Ability = Ability()
    # Of the layers' bytes, those that every rank of a tensor group holds: norms, routers.
    tensor_whole_bytes: int = 0
    # The same of a token's KV: latent attention keeps all of it on every rank.
    tensor_kv_whole_bytes: int = 0
    # What one token reads of each layer, where that is less than all: some of many experts.
    layer_read_bytes: tuple[int, ...] = ()

    @property
    def layer_count(self) -> int:
        return len(self.layer_bytes)


@dataclass(frozen=True, slots=True)
class Minimum:
    rtt_us: int
    bits_per_s: int


# A medium that is not in here never meets a minimum, but for LOOPBACK: nobody knows what is behind it.
MINIMUMS: Mapping[Medium, Minimum] = MappingProxyType(
    {
        Medium.THUNDERBOLT: Minimum(RTT_LIMITS_US[Medium.THUNDERBOLT], 10_000_000_000),
        Medium.ETHERNET: Minimum(RTT_LIMITS_US[Medium.ETHERNET], 800_000_000),
        Medium.WIFI: Minimum(RTT_LIMITS_US[Medium.WIFI], 50_000_000),
    }
)


@dataclass(frozen=True, slots=True)
class HostfileHost:
    """As mlx.launch reads it. `rdma`: by the number of the other host, its devices; empty where the file has none."""

    ssh: str
    ips: tuple[str, ...] = ()
    rdma: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Hostfile:
    """Of mlx.launch. `backend`: its own word, "" where the file does not say."""

    hosts: tuple[HostfileHost, ...]
    backend: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator wants. Empty and None: as it comes."""

    # 0: as many as fit.
    kv_budget_tokens: int = 0
    # THUNDERBOLT and ETHERNET only, within their minimums; otherwise a slow path is taken when no other is left.
    requires_fast: bool = False
    strategy: Strategy | None = None
    backend: Backend | None = None
    # These and no others.
    nodes: frozenset[NodeId] = frozenset()
    node_count_min: int = 1
    minimums: Mapping[Medium, Minimum] = field(default_factory=lambda: MINIMUMS)
    # Backends that have failed too often here, and how.
    given_up: Mapping[Backend, str] = field(default_factory=dict)
    hostfile: Hostfile | None = None


@dataclass(frozen=True, slots=True)
class Dial:
    """How a rank reaches another: by a link that it dials, or by rails."""

    to_rank: int
    link: Link | None = None
    rails: tuple[Rail, ...] = ()
    # Why the link does not meet its minimums; "" where it does.
    below: str = ""


@dataclass(frozen=True, slots=True)
class Rank:
    """Its number is its place in the placement. Layers [first, end); all of them in a tensor group."""

    node: NodeId
    first_layer: int
    end_layer: int
    # Attention heads of each layer.
    head_count: int
    # Weights, KV of the whole budget, activations; and what is free of the node's memory beside that.
    needed_bytes: int
    left_bytes: int
    dials: tuple[Dial, ...] = ()
    must_fetch: bool = False


# By rank, then by the other rank: the devices that lead there, in the same order from both sides.
Matrix = tuple[tuple[tuple[str, ...], ...], ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of decoding one sequence; seconds a token. estimate.py has the formula."""

    memory_s: float
    links_s: float

    @property
    def tokens_per_s(self) -> float:
        return 1 / (self.memory_s + self.links_s)


@dataclass(frozen=True, slots=True)
class Placement:
    """A decision: the same inputs give the same one on any machine."""

    strategy: Strategy
    # None where one node has all.
    backend: Backend | None
    ranks: tuple[Rank, ...]
    kv_budget_tokens: int
    # Where rank 0 listens for NCCL and JACCL; "" where nobody needs it, or no address would do.
    coordinator: str = ""
    devices: Matrix = ()
    # JACCL passes on from neighbour to neighbour.
    is_rail_ring: bool = False
    # Why this one, and what it has fallen back from.
    reasons: tuple[str, ...] = ()
    # Links below their minimums, with the figures: the deployment is SLOW.
    slow: tuple[str, ...] = ()
    # Links that are DEGRADED, with the figures.
    degraded: tuple[str, ...] = ()
    # None: a node's memory bandwidth is not known.
    estimate: Estimate | None = None

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        return tuple(rank.node for rank in self.ranks)


class Reason(Enum):
    """Why a candidate was not taken."""

    NODE = "node"  # Is not ALIVE, or has not told its memory.
    FILES = "files"
    PIN = "pin"  # The operator wants it otherwise.
    ENGINE = "engine"  # Cannot split this architecture so, or was not tried yet.
    SIZES = "sizes"  # Heads or layers that so many ranks do not divide.
    BACKEND = "backend"  # A node's MLX does not offer it, or its facts rule it out.
    MEMORY = "memory"
    LINK = "link"  # Nobody has crossed it, or it is DOWN.
    SLOW = "slow"  # Below its minimums.
    RAIL = "rail"
    COORDINATOR = "coordinator"  # Rank 0 has no address that all others can dial.
    HOSTFILE = "hostfile"
    PREFERENCE = "preference"  # It would do; another is better.


@dataclass(frozen=True, slots=True)
class Rejected:
    """A set of nodes in one way; without nodes: every set of it."""

    nodes: tuple[NodeId, ...]
    reason: Reason
    # With the figures, or the row of the link.
    text: str
    strategy: Strategy | None = None
    backend: Backend | None = None
    # Sets that it stands for: above 8 nodes one example is told of many.
    count: int = 1
    # Directed pairs at which it fails, where it is a matter of links.
    pairs: tuple[tuple[NodeId, NodeId], ...] = ()


class WaitFor(Enum):
    LINKS = "links"
    NODES = "nodes"
    FACTS = "facts"  # What a node or the audit has not said yet.
    MEMORY = "memory"  # What others hold.


@dataclass(frozen=True, slots=True)
class Wait:
    """`nodes`: a directed pair, or one node; empty: the audit of the model."""

    what: WaitFor
    nodes: tuple[NodeId, ...]
    text: str


class Verdict(Enum):
    PLACED = 1
    WAITING = 2  # For links, nodes, facts or memory: `waits` names them.
    IMPOSSIBLE = 3  # Not even with every link UP and nothing promised to others.


@dataclass(frozen=True, slots=True)
class Plan:
    verdict: Verdict
    # One sentence.
    why: str
    placement: Placement | None = None
    rejected: tuple[Rejected, ...] = ()
    waits: tuple[Wait, ...] = ()
