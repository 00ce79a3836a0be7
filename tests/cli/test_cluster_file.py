"""A cluster that is written down, as `plan --cluster` reads it."""

from pathlib import Path
from random import Random

import pytest

from thunderline.cli.cluster_file import BadClusterFile, read
from thunderline.scheduler.imagined import situation
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.placing.values import Ability, Backend, Model, Policy, Strategy
from thunderline.v1 import cluster_pb2, planning_pb2

EXAMPLE = Path(__file__).parents[2] / "deploy/cluster.example.toml"
NODE = '[[node]]\nname = "a"\nmemory = "128 GB"\n'
PAIR = NODE + '[[node]]\nname = "b"\nranks_memory = "64 GiB"\nrdma = true\n'
GIB = 2**30


def node(text: str) -> planning_pb2.ImaginedNode:
    return read(f'[[node]]\nname = "a"\n{text}').nodes[0]


def way(text: str) -> planning_pb2.ImaginedWay:
    return read(PAIR + text).ways[0]


def test_a_node_has_what_stands_there_and_nothing_is_guessed() -> None:
    assert node('memory = "128 GB"') == planning_pb2.ImaginedNode(name="a", memory_bytes=96 * GIB)
    told = node('ranks_memory = "0.5 TB"\nmemory_bandwidth = "1.8 TB/s"\nbackends = ["ring", "nccl"]\nrdma = true')
    assert told == planning_pb2.ImaginedNode(
        name="a",
        memory_bytes=512 * GIB,
        memory_bytes_per_s=1_800_000_000_000,
        backends=[planning_pb2.DISTRIBUTED_BACKEND_RING, planning_pb2.DISTRIBUTED_BACKEND_NCCL],
        rdma=True,
    )


def test_a_chip_gives_the_bandwidth_unless_that_is_said() -> None:
    by_chip = node('memory = "128 GB"\nchip = "M4 Max"').memory_bytes_per_s
    assert by_chip > 300 * 10**9
    assert node('memory = "128 GB"\nchip = "Apple M4 Max"').memory_bytes_per_s == by_chip
    assert node('memory = "128 GB"\nchip = "M4 Max"\nmemory_bandwidth = "900 GB/s"').memory_bytes_per_s == 9 * 10**11


def test_ranks_memory_may_stand_beside_memory() -> None:
    assert node('memory = "128 GB"\nranks_memory = "100 GB"').memory_bytes == 100 * GIB


# What stands in the file beside nodes a (no RDMA) and b: medium, RTT in us, Gb/s, RDMA.
WAYS: dict[str, tuple[str, tuple[cluster_pb2.Medium.ValueType, int, float, bool]]] = {
    "a cable": ('[[cable]]\nbetween = ["a", "b"]', (cluster_pb2.MEDIUM_THUNDERBOLT, 500, 40.0, False)),
    "a cable with RDMA is of Thunderbolt 5": (
        '[[cable]]\nbetween = ["a", "b"]\nrdma = true',
        (cluster_pb2.MEDIUM_THUNDERBOLT, 500, 80.0, True),
    ),
    "a cable as it is said": (
        '[[cable]]\nbetween = ["a", "b"]\nspeed = "20 Gb/s"\nrtt = "300us"\nrdma = false',
        (cluster_pb2.MEDIUM_THUNDERBOLT, 300, 20.0, False),
    ),
    "a network is Ethernet": ("[[network]]", (cluster_pb2.MEDIUM_ETHERNET, 500, 1.0, False)),
    "Wi-Fi": ('[[network]]\nmedium = "wifi"', (cluster_pb2.MEDIUM_WIFI, 10_000, 0.4, False)),
    "a VPN": ('[[network]]\nmedium = "vpn"\nrtt = "0.05 s"', (cluster_pb2.MEDIUM_VPN, 50_000, 0.05, False)),
}


@pytest.mark.parametrize(("text", "expected"), WAYS.values(), ids=WAYS.keys())
def test_a_way_is_as_its_medium_usually_is(
    text: str, expected: tuple[cluster_pb2.Medium.ValueType, int, float, bool]
) -> None:
    found = way(text)
    assert (found.medium, found.rtt_us, found.bits_per_s / 1e9, found.rdma) == expected
    assert list(found.nodes) == ["a", "b"] and not found.one_way


def test_a_cable_carries_rdma_where_both_ends_have_it() -> None:
    both = read((PAIR + '[[cable]]\nbetween = ["b", "a"]').replace('"128 GB"', '"128 GB"\nrdma = true'))
    assert both.ways[0].rdma


def test_a_network_of_some_and_one_that_is_dialled_one_way() -> None:
    three = PAIR + NODE.replace('"a"', '"c"')
    found = read(three + '[[network]]\nnodes = ["c", "a"]\none_way = true\n[[network]]').ways
    assert [(list(one.nodes), one.one_way) for one in found] == [(["c", "a"], True), (["a", "b", "c"], False)]


def test_a_node_alone_is_a_cluster() -> None:
    assert not read(NODE).ways


# The file: what is said of it.
BAD: dict[str, tuple[str, str]] = {
    "empty": ("", "has no [[node]]"),
    "no TOML, with the line": ("[[node]]\nname = a\n", "is no TOML: Invalid value (at line 2, column 8)"),
    "one bracket": ('[node]\nname = "a"', "node is one table or a value: write [[node]], with two brackets"),
    "a list of values": ("node = [1]", "node is one table or a value"),
    "another table": (NODE + "[[link]]", "unknown 'link': a file has [[node]], [[cable]] and [[network]]"),
    "another key": (NODE + "ram = 3", "[[node]] 1 (\"a\"): unknown key 'ram'; known: name, memory, "),
    "no name": ('[[node]]\nmemory = "1 GB"', "[[node]] 1: has no name"),
    "a name with a comma": ('[[node]]\nname = "a,b"', '[[node]] 1 ("a,b"): name = "a,b": should be letters'),
    "a name of 65": (f'[[node]]\nname = "{"a" * 65}"', "should be letters, digits, '.', '_' and '-', 64 at most"),
    "two of one name": (NODE + NODE, "two nodes are called 'a'"),
    "no memory": ('[[node]]\nname = "a"', "has no memory: memory ="),
    "memory without its unit": ('[[node]]\nname = "a"\nmemory = 128', "memory = 128: should be a figure with its unit"),
    "memory in bits": ('[[node]]\nname = "a"\nmemory = "128 Gb"', 'memory = "128 Gb": should be a figure with its'),
    "no memory at all": ('[[node]]\nname = "a"\nmemory = "0 GB"', 'memory = "0 GB": should be'),
    "less than none": ('[[node]]\nname = "a"\nmemory = "-1 GB"', 'memory = "-1 GB": should be'),
    "more than there is": ('[[node]]\nname = "a"\nmemory = "999999999999 TB"', "should be a figure"),
    "a figure of 400 digits": (f'[[node]]\nname = "a"\nmemory = "{"9" * 400} GB"', "should be a figure"),
    "ranks with more than all": (NODE + 'ranks_memory = "129 GB"', "ranks_memory is more than memory"),
    "a chip that nobody knows": (NODE + 'chip = "M4 Mega Pro"', 'chip = "M4 Mega Pro": should be one of M1, '),
    "a backend that nobody knows": (NODE + 'backends = ["mpi"]', 'backends = ["mpi"]: should be a list of ring, jaccl'),
    "no backend": (NODE + "backends = []", "backends = []: should be a list"),
    "RDMA in words": (NODE + 'rdma = "yes"', 'rdma = "yes": should be true or false'),
    "a cable with one end": (PAIR + '[[cable]]\nbetween = ["a"]', "a cable has two ends"),
    "a cable without ends": (PAIR + "[[cable]]", "[[cable]] 1: a cable has two ends"),
    "a cable from a node to itself": (PAIR + '[[cable]]\nbetween = ["a", "a"]', "a node stands there twice"),
    "a cable to nobody": (PAIR + '[[cable]]\nbetween = ["a", "c"]', "no node is called 'c'; there are a, b"),
    "ends that are no list": (PAIR + '[[cable]]\nbetween = "a b"', 'between = "a b": should be a list of nodes'),
    "a speed in bytes": (
        PAIR + '[[network]]\nspeed = "10 GB/s"',
        'speed = "10 GB/s": should be a figure with its unit',
    ),
    "an RTT of an hour": (PAIR + '[[network]]\nrtt = "3600 s"', 'rtt = "3600 s": should be'),
    "another medium": (PAIR + '[[network]]\nmedium = "lan"', 'medium = "lan": should be one of ethernet, wifi, vpn'),
    "a network of one": (NODE + "[[network]]", "[[network]] 1: a network has two nodes at least"),
    "the second of two": (PAIR + '[[network]]\n[[network]]\nmedium = "x"', "[[network]] 2"),
    "one way among three": (
        PAIR + NODE.replace('"a"', '"c"') + "[[network]]\none_way = true",
        "one_way is of two nodes",
    ),
    "too many nodes": ("".join(NODE.replace('"a"', f'"n{i}"') for i in range(65)), "has 65 nodes: 64 at most"),
    "too many ways": (PAIR + "[[network]]\n" * 2049, "has 2049 cables and networks: 2048 at most"),
    "nothing but brackets": ("a = " + "[" * 5000, "is no TOML"),
}


@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_is_named_with_its_key(text: str, said: str) -> None:
    with pytest.raises(BadClusterFile) as told:
        read(text)
    assert said in str(told.value)
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize("seed", range(30))
def test_a_broken_file_is_refused_or_read_and_what_is_read_can_be_planned_for(seed: int) -> None:
    random, text = Random(seed), EXAMPLE.read_text()
    lines = text.splitlines()
    for _ in range(40):
        broken = list(lines)
        for _ in range(random.randint(1, 4)):
            place = random.randrange(len(broken))
            line = broken[place]
            cut = random.randrange(len(line) + 1)
            broken[place] = random.choice((line[:cut], line[cut:], line[:cut] + random.choice('[]"=,0#') + line[cut:]))
        try:
            found = read("\n".join(broken))
        except BadClusterFile:
            continue
        assert len(situation(found).nodes) == len(found.nodes) > 0


def test_the_example_is_a_cluster() -> None:
    found = read(EXAMPLE.read_text())
    assert [one.name for one in found.nodes] == ["studio-1", "studio-2", "macbook", "server"]
    assert all(one.memory_bytes_per_s for one in found.nodes)
    media = [cluster_pb2.Medium.Name(one.medium).removeprefix("MEDIUM_") for one in found.ways]
    assert media == ["THUNDERBOLT"] * 3 + ["ETHERNET", "WIFI"]
    assert [one.rdma for one in found.ways] == [True] * 3 + [False] * 2
    assert [len(one.nodes) for one in found.ways] == [2, 2, 2, 4, 2]


def test_three_macs_of_the_example_divide_every_layer_over_their_cables() -> None:
    here = situation(read(EXAMPLE.read_text()))
    model = Model((3 * GIB,) * 48, head_count=48, kv_head_count=12, pipeline=Ability(True), tensor=Ability(True))
    found = plan(here, model, Policy(node_count_min=3)).placement
    assert found is not None
    assert (found.strategy, found.backend) == (Strategy.TENSOR, Backend.JACCL), found.reasons
    assert found.estimate is not None and found.estimate.links_s > 0
    assert [len(dial.rails) for rank in found.ranks for dial in rank.dials] == [1] * 6


def test_what_the_example_calls_the_default_is_the_default() -> None:
    text = EXAMPLE.read_text()
    marks = ("# default: 80 with RDMA", "# of TCP over it", "# default: where both", "# default: 0.5;")
    without = [line for line in text.splitlines() if not any(mark in line for mark in marks)]
    assert len(text.splitlines()) - len(without) == len(marks)
    assert read("\n".join(without)) == read(text)
