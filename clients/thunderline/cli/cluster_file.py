"""A cluster that is only written down, in TOML, for `plan --cluster`. Pure; README.md shows one.

A `[[node]]` has a name, its memory, and what gives its memory bandwidth; a `[[cable]]` joins two nodes, a `[[network]]`
many. What is left out is as of its medium.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeVar

from thunderline.cli.plan_words import BACKENDS
from thunderline.cluster.chips import GB_PER_S, memory_bytes_per_s
from thunderline.cluster.planning import NAME_LENGTH_MAX, NODE_COUNT_MAX, RANKS_SHARE, WAY_COUNT_MAX
from thunderline.v1 import cluster_pb2, planning_pb2

T = TypeVar("T")

# As `--nodes` takes it: no blanks, no commas.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# More than any machine has; and no slower link is worth a plan.
BYTES_MAX = 2**60
RTT_US_MAX = 60_000_000

FIGURE = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*(\S+)\s*")
# Memory is sold by the GB that is 2**30 bytes; everything else counts by thousands.
MEMORY = {"MB": 2**20, "MiB": 2**20, "GB": 2**30, "GiB": 2**30, "TB": 2**40, "TiB": 2**40}
BANDWIDTH = {"MB/s": 10**6, "GB/s": 10**9, "TB/s": 10**12}
SPEED = {"Mb/s": 10**6, "Gb/s": 10**9}
RTT = {"us": 1, "µs": 1, "ms": 1000, "s": 1_000_000}


class Usual(NamedTuple):
    """Of a medium, where the file does not say."""

    rtt_us: int
    bits_per_s: int


# A direct cable shows 0.3 to 0.7 ms over TCP; Thunderbolt 4 links at 40 Gb/s.
CABLE = Usual(500, 40_000_000_000)
# RDMA needs Thunderbolt 5, which links at 80.
RDMA_BITS_PER_S = 80_000_000_000
NETWORKS: Mapping[str, tuple["cluster_pb2.Medium.ValueType", Usual]] = {
    # Of a switch for the home: 1 Gb/s.
    "ethernet": (cluster_pb2.MEDIUM_ETHERNET, Usual(500, 1_000_000_000)),
    # A good one shows up to 30 ms.
    "wifi": (cluster_pb2.MEDIUM_WIFI, Usual(10_000, 400_000_000)),
    "vpn": (cluster_pb2.MEDIUM_VPN, Usual(30_000, 50_000_000)),
}


class BadClusterFile(ValueError):
    """The message is one line that says which entry, and what is wrong with it."""


def read(text: str) -> planning_pb2.ImaginedCluster:
    """Raises BadClusterFile."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadClusterFile(f"is no TOML: {error}") from None
    except RecursionError:
        raise BadClusterFile("is no TOML that anybody would write") from None
    if unknown := sorted(tree.keys() - {"node", "cable", "network"}):
        raise BadClusterFile(f"unknown {unknown[0]!r}: a file has [[node]], [[cable]] and [[network]]")
    nodes = [_node(one) for one in _entries(tree, "node")]
    names = [one.name for one in nodes]
    if not nodes:
        raise BadClusterFile("has no [[node]]")
    if len(nodes) > NODE_COUNT_MAX:
        raise BadClusterFile(f"has {len(nodes)} nodes: {NODE_COUNT_MAX} at most")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise BadClusterFile(f"two nodes are called {twice[0]!r}")
    with_rdma = {one.name for one in nodes if one.rdma}
    ways = [_cable(one, names, with_rdma) for one in _entries(tree, "cable")]
    ways += [_network(one, names) for one in _entries(tree, "network")]
    if len(ways) > WAY_COUNT_MAX:
        raise BadClusterFile(f"has {len(ways)} cables and networks: {WAY_COUNT_MAX} at most")
    return planning_pb2.ImaginedCluster(nodes=nodes, ways=ways)


class _Entry:
    """One table of the file, which takes each of its keys once; what is left over is nobody's."""

    def __init__(self, kind: str, number: int, values: Mapping[str, Any]) -> None:
        self._values = dict(values)
        self._known: list[str] = []
        label = self._values.get("name") or self._values.get("between") or self._values.get("medium")
        self._where = f"[[{kind}]] {number}" + (f" ({_shown(label)})" if label else "")

    def take(self, key: str, what: str, read: Callable[[Any], T | None], default: T) -> T:
        """`what`: what it should be, for people. `read` gives None for what it is not."""
        self._known.append(key)
        if key not in self._values:
            return default
        value = self._values.pop(key)
        found = read(value)
        if found is None:
            raise self.bad(f"{key} = {_shown(value)}: should be {what}")
        return found

    def figure(self, key: str, units: Mapping[str, int], example: str, default: int = 0, most: int = BYTES_MAX) -> int:
        """A whole number of the smallest unit, above 0."""

        def read(value: Any) -> int | None:
            matched = FIGURE.fullmatch(value) if isinstance(value, str) else None
            if matched is None or matched[2] not in units:
                return None
            found = round(float(matched[1]) * units[matched[2]])
            return found if 0 < found <= most else None

        return self.take(key, f'a figure with its unit ({", ".join(units)}), as in "{example}"', read, default)

    def flag(self, key: str, default: bool) -> bool:
        return self.take(key, "true or false", lambda value: value if isinstance(value, bool) else None, default)

    def names(self, key: str, known: Collection[str], default: list[str]) -> list[str]:
        """Of nodes, each once."""
        found = self.take(key, 'a list of nodes, as in ["a", "b"]', _texts, default)
        for name in found:
            if name not in known:
                raise self.bad(f"{key}: no node is called {name!r}; there are {', '.join(known)}")
        if len(set(found)) < len(found):
            raise self.bad(f"{key} = {_shown(found)}: a node stands there twice")
        return found

    def end(self) -> None:
        if self._values:
            raise self.bad(f"unknown key {next(iter(self._values))!r}; known: {', '.join(self._known)}")

    def bad(self, text: str) -> BadClusterFile:
        return BadClusterFile(f"{self._where}: {text}")


def _entries(tree: Mapping[str, Any], kind: str) -> list[_Entry]:
    found = tree.get(kind, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise BadClusterFile(f"{kind} is one table or a value: write [[{kind}]], with two brackets, before each")
    return [_Entry(kind, number, values) for number, values in enumerate(found, 1)]


def _node(entry: _Entry) -> planning_pb2.ImaginedNode:
    name = entry.take("name", f"letters, digits, '.', '_' and '-', {NAME_LENGTH_MAX} at most", _name, "")
    if not name:
        raise entry.bad("has no name")
    memory = entry.figure("memory", MEMORY, "128 GB")
    ranks = entry.figure("ranks_memory", MEMORY, "96 GB", default=int(memory * RANKS_SHARE))
    if not ranks:
        raise entry.bad('has no memory: memory = "128 GB" is all of it, of which ranks get 75%, or say ranks_memory')
    if memory and ranks > memory:
        raise entry.bad("ranks_memory is more than memory")
    chip = entry.take("chip", f'one of {", ".join(GB_PER_S)}; of another say memory_bandwidth = "546 GB/s"', _chip, "")
    bandwidth = entry.figure("memory_bandwidth", BANDWIDTH, "546 GB/s", default=memory_bytes_per_s(chip))
    of_those = f"a list of {', '.join(BACKENDS)}"
    backends: list[planning_pb2.DistributedBackend.ValueType] = entry.take("backends", of_those, _backends, [])
    rdma = entry.flag("rdma", False)
    entry.end()
    return planning_pb2.ImaginedNode(
        name=name, memory_bytes=ranks, memory_bytes_per_s=bandwidth, backends=backends, rdma=rdma
    )


def _cable(entry: _Entry, names: Collection[str], with_rdma: Collection[str]) -> planning_pb2.ImaginedWay:
    ends = entry.names("between", names, [])
    if len(ends) != 2:
        raise entry.bad('a cable has two ends: between = ["a", "b"]')
    rdma = entry.flag("rdma", set(ends) <= set(with_rdma))
    usual = CABLE._replace(bits_per_s=RDMA_BITS_PER_S) if rdma else CABLE
    way = _way(entry, ends, cluster_pb2.MEDIUM_THUNDERBOLT, usual)
    way.rdma = rdma
    entry.end()
    return way


def _network(entry: _Entry, names: list[str]) -> planning_pb2.ImaginedWay:
    wanted = f"one of {', '.join(NETWORKS)}"
    medium, usual = entry.take("medium", wanted, _network_medium, NETWORKS["ethernet"])
    way = _way(entry, entry.names("nodes", names, names), medium, usual)
    if len(way.nodes) < 2:
        raise entry.bad("a network has two nodes at least")
    if way.one_way and len(way.nodes) != 2:
        raise entry.bad("one_way is of two nodes: only the first can dial the second")
    entry.end()
    return way


def _way(
    entry: _Entry, ends: list[str], medium: "cluster_pb2.Medium.ValueType", usual: Usual
) -> planning_pb2.ImaginedWay:
    return planning_pb2.ImaginedWay(
        nodes=ends,
        medium=medium,
        rtt_us=entry.figure("rtt", RTT, "0.5 ms", usual.rtt_us, RTT_US_MAX),
        bits_per_s=entry.figure("speed", SPEED, "80 Gb/s", usual.bits_per_s),
        one_way=entry.flag("one_way", False),
    )


def _name(value: Any) -> str | None:
    is_one = isinstance(value, str) and len(value) <= NAME_LENGTH_MAX and NAME.fullmatch(value)
    return value if is_one else None


def _chip(value: Any) -> str | None:
    """By its whole name: of a word that is misspelt nobody wants the figure of another chip."""
    word = value.lower().removeprefix("apple ") if isinstance(value, str) else ""
    return value if word in {name.lower() for name in GB_PER_S} else None


def _texts(value: Any) -> list[str] | None:
    return value if isinstance(value, list) and all(isinstance(one, str) for one in value) else None


def _backends(value: Any) -> "list[planning_pb2.DistributedBackend.ValueType] | None":
    names = _texts(value)
    return None if not names or not set(names) <= BACKENDS.keys() else [BACKENDS[one] for one in dict.fromkeys(names)]


def _network_medium(value: Any) -> "tuple[cluster_pb2.Medium.ValueType, Usual] | None":
    return NETWORKS.get(value) if isinstance(value, str) else None


def _shown(value: Any) -> str:
    """As it stands in the file, nearly; nobody needs all of a long one."""
    text = f'"{value}"' if isinstance(value, str) else repr(value).replace("'", '"')
    return text if len(text) <= 60 else f"{text[:57]}..."
