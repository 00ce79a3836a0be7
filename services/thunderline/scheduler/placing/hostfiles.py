"""What MLX reads: the ring's hostfile, JACCL's device matrix, and the hostfile of mlx.launch. Pure.

All are checked by us: from a mesh with a hole MLX makes a ring without a word, and an address it does not understand
shows up half a minute later as a connection that failed.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from itertools import pairwise
from typing import Any

from thunderline.cluster import NodeId
from thunderline.cluster.planning import NODE_COUNT_MAX
from thunderline.scheduler.placing.rdma import MESH_RANKS_MAX, RING_RAILS_MAX
from thunderline.scheduler.placing.values import Backend, Hostfile, HostfileHost, Matrix, Placement

# By rank: "ip:port", one for each socket to each neighbour.
RingHosts = tuple[tuple[str, ...], ...]

# A host's name has 253 characters at most.
TEXT_LENGTH_MAX = 256
LAUNCH_BACKENDS = {"ring", "jaccl", "jaccl-ring", "nccl"}


class BadHostfile(ValueError):
    """The message is one line that says where."""


def listening(placement: Placement) -> tuple[str, ...]:
    """By rank of a ring: the address that the rank before it dials. "" where that has none."""
    ranks = placement.ranks
    found = []
    for number in range(len(ranks)):
        dial = next((one for one in ranks[number - 1].dials if one.to_rank == number and one.link), None)
        found.append(dial.link.address if dial and dial.link else "")
    return tuple(found)


def ring_hosts(placement: Placement, ports: Sequence[Sequence[int]]) -> RingHosts:
    """Entry k is where rank k listens: it is read by rank k and by rank k - 1, who dials it. `ports`: by rank."""
    pairs = zip(listening(placement), ports, strict=True)
    return tuple(tuple(f"{address}:{port}" for port in each) for address, each in pairs)


def ring_json(hosts: RingHosts) -> str:
    """The file that MLX_HOSTFILE names."""
    return json.dumps(hosts)


def ring_problems(hosts: Sequence[Sequence[str]]) -> list[str]:
    """What MLX would stumble over; none: it is fine."""
    found = [] if len(hosts) > 1 else ["a ring has two ranks at least: one alone would dial itself"]
    if len({len(one) for one in hosts}) > 1 or not all(hosts):
        found.append("each rank needs as many addresses as the others, one at least")
    for rank, entry in enumerate(hosts):
        found += [f"rank {rank}: {one!r} is no IPv4 address and port" for one in entry if not _is_socket(one)]
    twice = [one for one, count in Counter(one for entry in hosts for one in entry).items() if count > 1]
    return found + [f"{one} is given twice" for one in twice]


def _is_socket(text: str) -> bool:
    host, _, port = text.rpartition(":")
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return port.isascii() and port.isdigit() and 0 < int(port) < 65536


def matrix_json(devices: Matrix) -> str:
    """The file that MLX_IBV_DEVICES names: null, a name, or a list of names where there are several cables."""
    return json.dumps([[_cell(cell) for cell in row] for row in devices])


def matrix_problems(devices: Matrix, is_ring: bool) -> list[str]:
    """What keeps MLX from making a mesh, or a ring, of it; none: it is fine. Both ends of a cable stand in it."""
    count = len(devices)
    if count < 2:
        return ["a group has two ranks at least"]
    if bad := [
        f"row {i} has {len(row)} entries instead of {count}" for i, row in enumerate(devices) if len(row) != count
    ]:
        return bad
    found = [f"rank {i} leads to itself" for i in range(count) if devices[i][i]]
    for i, row in enumerate(devices):
        names = Counter(name for cell in row for name in cell)
        found += [f"{name} of rank {i} leads to several places" for name, each in names.items() if each > 1]
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    found += [
        f"ranks {i} and {j} name {len(devices[i][j])} and {len(devices[j][i])} devices"
        for i, j in pairs
        if len(devices[i][j]) != len(devices[j][i])
    ]
    return found + (_ring_problems(devices) if is_ring else _mesh_problems(devices))


def _mesh_problems(devices: Matrix) -> list[str]:
    count = len(devices)
    found = [f"a mesh has {MESH_RANKS_MAX} ranks at most, not {count}"] if count > MESH_RANKS_MAX else []
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    return found + [f"no device of rank {i} leads to rank {j}" for i, j in pairs if not devices[i][j]]


def _ring_problems(devices: Matrix) -> list[str]:
    count = len(devices)
    cells = [devices[i][(i + step) % count] for i in range(count) for step in (1, -1)]
    each = {len(cell) for cell in cells}
    if 0 in each:
        return ["two neighbours of the ring have no device for each other"]
    if len(each) > 1:
        return [f"neighbours of the ring have {min(each)} to {max(each)} devices for each other: as many everywhere"]
    too_many = max(each) > RING_RAILS_MAX
    return [f"neighbours of a ring have {RING_RAILS_MAX} devices for each other at most"] if too_many else []


def _cell(names: Sequence[str]) -> Any:
    if len(names) > 1:
        return list(names)
    return names[0] if names else None


def launch_hostfile(placement: Placement, ssh: Mapping[NodeId, str]) -> str:
    """For `mlx.launch --hostfile`. `ssh`: by which name each node is reached; by default its id."""
    if placement.backend is None:
        backend, addresses = "ring", ("",) * len(placement.ranks)
    elif placement.backend is Backend.RING:
        backend, addresses = "ring", listening(placement)
    else:
        backend = "jaccl-ring" if placement.is_rail_ring else placement.backend.value
        addresses = (placement.coordinator, *("",) * (len(placement.ranks) - 1))
    hosts = []
    for number, (rank, address) in enumerate(zip(placement.ranks, addresses, strict=True)):
        host: dict[str, Any] = {"ssh": ssh.get(rank.node, rank.node), "ips": [address] if address else []}
        if placement.devices:
            host["rdma"] = [_cell(cell) for cell in placement.devices[number]]
        hosts.append(host)
    return json.dumps({"backend": backend, "envs": [], "hosts": hosts}, indent=2) + "\n"


def read_launch_hostfile(text: str) -> Hostfile:
    """Both of its forms: an object with `hosts`, or only their list. Raises BadHostfile."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadHostfile(f"is no JSON: {error}") from None
    told, backend = (tree.get("hosts"), tree.get("backend", "")) if isinstance(tree, dict) else (tree, "")
    if not isinstance(told, list) or not told:
        raise BadHostfile("has no list of hosts")
    if len(told) > NODE_COUNT_MAX:
        raise BadHostfile(f"has {len(told)} hosts; at most {NODE_COUNT_MAX}")
    if not isinstance(backend, str) or backend not in {"", "any", *LAUNCH_BACKENDS}:
        word = repr(backend)[:TEXT_LENGTH_MAX]
        raise BadHostfile(f"backend {word} is none of {', '.join(sorted(LAUNCH_BACKENDS))}")
    hosts = tuple(_host(one, number) for number, one in enumerate(told))
    for (number, one), (_, other) in pairwise(enumerate(hosts)):
        if bool(one.rdma) != bool(other.rdma):
            raise BadHostfile(f"host {number} or {number + 1}: `rdma` is given by one of them only")
    return Hostfile(hosts, "" if backend == "any" else backend)


def _host(tree: Any, number: int) -> HostfileHost:
    if not isinstance(tree, dict) or not _is_text(tree.get("ssh")):
        raise BadHostfile(f"host {number}: has no `ssh`")
    ips, rdma = tree.get("ips") or [], tree.get("rdma") or []
    if not isinstance(ips, list) or not all(_is_text(one) for one in ips):
        raise BadHostfile(f"host {number}: `ips` is no list of addresses")
    cells = [_names(cell) for cell in rdma] if isinstance(rdma, list) else [None]
    if None in cells:
        raise BadHostfile(f"host {number}: `rdma` is no list of devices, one entry for each host")
    return HostfileHost(tree["ssh"], tuple(ips), tuple(one for one in cells if one is not None))


def _names(cell: Any) -> tuple[str, ...] | None:
    """Of one entry of `rdma`; None: it is not understood."""
    if cell is None:
        return ()
    names = cell if isinstance(cell, list) else [cell]
    return tuple(names) if all(one and _is_text(one) for one in names) else None


def _is_text(value: Any) -> bool:
    """What may be shown, and sent on."""
    return isinstance(value, str) and len(value) <= TEXT_LENGTH_MAX and value.isprintable()
