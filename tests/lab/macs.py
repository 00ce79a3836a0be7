"""Situations of Macs, each built as a lab: hosts with a Mac's interfaces and commands, and nodes on them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from installation import until
from lab import verbs
from lab.media import Medium
from lab.network import Host, Lab
from lab.nodes import Cluster, Node
from macos.recording import COMMANDS
from macos.standing_in import StandIns
from thunderline.topology.memory import kept_cables

FOLDER = Path(__file__).parents[1] / "macos"
SITUATIONS, MACHINES = FOLDER / "situations", FOLDER / "machines"
# What a node asks of every Mac that has it.
ASKED = tuple(" ".join(words) for words, _ in COMMANDS)
# Topology writes at the next of its rounds.
KEPT_S = 10.0

Tree = Mapping[str, Any]


@dataclass(frozen=True)
class Mac:
    """A node that takes its host for a Mac. `recordings`: of its machine, then of itself in this situation."""

    node: Node
    stand_ins: StandIns
    recordings: tuple[Path, ...]

    def show(self, files: str = "") -> None:
        """`files`: a folder in that of the situation, of what is otherwise now."""
        more = [self.recordings[-1] / files] if files else []
        self.stand_ins.show(*self.recordings, *more)

    def is_asked(self) -> bool:
        """Whether every command has been run that is there."""
        called = set(self.stand_ins.calls())
        there = [line for line in ASKED if (self.stand_ins.folder / line.partition(" ")[0]).exists()]
        return called.issuperset(there)

    def has_kept_cables(self) -> bool:
        """Whether its disk has those of its topology, with the ports at their ends."""
        told = {end.port_uuid for one in self.node.topology().cables for end in (one.one, one.other)}
        return told == {end.port_uuid for one in kept_cables(self.node.home) for end in one.ends}


@dataclass(frozen=True)
class Situation:
    """`steps`: what is done, then what is true; see expected.json."""

    net: Lab
    cluster: Cluster
    macs: Mapping[str, Mac]
    media: list[Medium]
    steps: list[Tree]

    @property
    def names(self) -> dict[str, str]:
        return {mac.node.node_id: name for name, mac in self.macs.items()}

    def take(self, step: Tree) -> None:
        """What a step does, in this order: all processes are killed, cables are pulled, the Macs tell of what is so
        now, cables are plugged in, all starts again."""
        does = step["does"]
        if does.get("restart"):
            for name, mac in self.macs.items():
                until(f"{name} has written down its cables", mac.has_kept_cables, KEPT_S)
            for mac in self.macs.values():
                mac.node.kill()
                mac.stand_ins.forget()
        for number in does.get("cut", ()):
            verbs.cut(self.net, self.media[number])
        for mac in self.macs.values():
            mac.show(does.get("files", ""))
        for number in does.get("heal", ()):
            verbs.heal(self.net, self.media[number])
        if does.get("restart"):
            self.cluster.start()


def built(net: Lab, cluster: Cluster, name: str, root: Path) -> Situation:
    """Not started. `root`: for the stand-ins."""
    folder = SITUATIONS / name
    network: Tree = json.loads((folder / "network.json").read_text())
    hosts = {host: net.host(host) for host in network["machines"]}
    media = [_medium(net, hosts, number, tree) for number, tree in enumerate(network["media"])]
    macs = {}
    for host, machine in network["machines"].items():
        recordings = MACHINES / machine, folder / host
        stand_ins = StandIns(root / f"{host}-commands")
        node = cluster.node(hosts[host])
        node.environment.update(stand_ins.environment)
        macs[host] = Mac(node, stand_ins, recordings)
        macs[host].show()
    steps = json.loads((folder / "expected.json").read_text())["steps"]
    return Situation(net, cluster, macs, media, steps)


def _medium(net: Lab, hosts: Mapping[str, Host], number: int, tree: Tree) -> Medium:
    members, interfaces = [hosts[name] for name in tree["ends"]], list(tree["ends"].values())
    subnet = f"192.168.{4 + number}.0/24"
    match tree["kind"]:
        case "cable":
            one, other = members
            medium: Medium = net.cable(one, other, subnet, interfaces)
        case "hub":
            hub = net.lan(*members, subnet=subnet, interface=interfaces)
            # The first has the hub; the others are behind it.
            hub.isolate(*(host.namespace for host in members[1:]))
            medium = hub
        case "lan":
            medium = net.lan(*members, interface=interfaces)
        case kind:
            raise ValueError(f"{kind!r} is nothing that joins Macs")
    for name, bridge in tree.get("bridges", {}).items():
        net.bridge(hosts[name], medium, bridge)
    return medium
