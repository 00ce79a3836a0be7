"""Macs as they are, each situation a folder of tests/macos/situations: what nodes and commands say of it is true."""

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from google.protobuf import json_format

from installation import until
from lab.macs import SITUATIONS, Mac, Situation, Tree, built
from lab.network import Lab
from lab.nodes import Cluster
from lab.seen import Topology
from lab.told import Found, in_order, strange, told, unmet

NAMES = sorted(path.name for path in SITUATIONS.iterdir())
ASKED_S = 20.0
# A scan at once, one more after a command that hung, and what a busy machine adds.
TOLD_S = 40.0
SAID_S = 40.0
# A command that hung was killed with what it started.
KILLED_S = 15.0
LOOK_EVERY_S = 0.2


@pytest.mark.parametrize("name", NAMES)
def test_macs_say_what_is_true(net: Lab, cluster: Cluster, tmp_path: Path, name: str, evidence: dict[str, Any]) -> None:
    situation = built(net, cluster, name, tmp_path)
    for number, step in enumerate(situation.steps):
        begun_s = time.monotonic()
        if number == 0:
            cluster.start()
        else:
            situation.take(step)
        for host, mac in situation.macs.items():
            until(f"every command of {host} was run", mac.is_asked, ASKED_S, LOOK_EVERY_S)
        for host, mac in situation.macs.items():
            becomes(partial(graph, mac, situation), in_order(step), TOLD_S, f"{step['what']}: the graph of {host}")
        after_s = round(time.monotonic() - begun_s, 1)
        if "doctor" in step:
            says(situation, step)
    until("no command is left", lambda: not left(situation), KILLED_S, LOOK_EVERY_S)
    evidence["situations"] = evidence.get("situations", 0) + 1
    evidence["graphs_true_after_s_max"] = max(after_s, evidence.get("graphs_true_after_s_max", 0.0))


def graph(mac: Mac, situation: Situation) -> Mapping[str, Any]:
    return told(mac.node.topology(), situation.names)


def becomes(look: Callable[[], Any], expected: Any, within_s: float, what: str) -> None:
    """Fails with both."""
    end_s = time.monotonic() + within_s
    while (found := look()) != expected and time.monotonic() < end_s:
        time.sleep(LOOK_EVERY_S)
    assert found == expected, what


def says(situation: Situation, step: Tree) -> None:
    """What the commands print, all of them side by side; what only a later scan tells is waited for."""
    first = next(iter(situation.macs.values()))
    wanted: dict[str, tuple[Mac, list[Tree], tuple[str, ...]]] = {"--all": (first, step["doctor --all"], ("--all",))}
    wanted |= {host: (situation.macs[host], expected, ()) for host, expected in step["doctor"].items()}
    with ThreadPoolExecutor(len(wanted) + 1) as pool:
        links = pool.submit(becomes, partial(said_links, first, situation), in_order(step), SAID_S, "links --json")
        doctors = [
            pool.submit(diagnoses, who, mac, words, expected, step.get("never", ()))
            for who, (mac, expected, words) in wanted.items()
        ]
        for one in [links, *doctors]:
            one.result()


def said_links(mac: Mac, situation: Situation) -> Mapping[str, Any]:
    done = mac.node.run("links", "--json")
    assert done.returncode == 0, done.stderr
    return told(json_format.Parse(done.stdout, Topology()), situation.names)


def diagnoses(who: str, mac: Mac, words: tuple[str, ...], expected: list[Tree], never: list[str]) -> None:
    """What has to be found is found, and of Macs nothing else."""
    end_s = time.monotonic() + SAID_S
    while True:
        findings = said_findings(mac, *words)
        lacks, more = unmet(expected, findings), strange(expected, never, findings)
        if not lacks and not more:
            return
        assert time.monotonic() < end_s, "\n".join(
            [f"doctor of {who}", *(f"lacks: {one}" for one in lacks), *(f"is strange: {one}" for one in more)]
            + [f"said: {one}" for one in findings]
        )


def said_findings(mac: Mac, *words: str) -> list[Found]:
    done = mac.node.run("doctor", *words, "--json")
    assert done.returncode in (0, 1), done.stderr
    findings: list[Found] = json.loads(done.stdout)["findings"]
    return findings


def left(situation: Situation) -> list[str]:
    """Processes of stand-ins, and what they have started."""
    found = []
    for mac in situation.macs.values():
        for pid in mac.node.host.pids():
            try:
                line = psutil.Process(pid).cmdline()
            except psutil.NoSuchProcess:
                continue
            if line[:1] == ["sleep"] or any(str(mac.stand_ins.folder) in word for word in line):
                found.append(" ".join(line))
    return found
