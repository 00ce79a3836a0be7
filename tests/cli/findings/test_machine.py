"""Disk, memory, BLAS, open files, ports: at which values something is said, and what."""

import errno
import sys

import pytest

from cli.findings.laws import NOTE, WARNING, WRONG, only, short
from thunderline.cli.findings.machine import (
    GB,
    GIB,
    Blocked,
    Disk,
    Engine,
    Memory,
    Owner,
    of_blocked,
    of_disks,
    of_engine,
    of_file_limit,
    of_memory,
    of_ports,
)

CONFIG = "/h/config.toml"
NGINX, OURS = Owner(12, "nginx"), Owner(13, "python3.11", "scheduler")

DISKS = {
    "much": (Disk(("/h",), 50 * GB, 500 * GB), NOTE, "disk of /h"),
    "5 GB and 5%": (Disk(("/h",), 5 * GB, 100 * GB), NOTE, "disk of /h"),
    "under 5 GB": (Disk(("/h",), 5 * GB - 1, 50 * GB), WARNING, "the disk of /h is nearly full"),
    "under 5%": (Disk(("/h",), 49 * GB, 1000 * GB), WARNING, "the disk of /h is nearly full"),
    "nothing": (Disk(("/h", "/models"), 0, 50 * GB), WRONG, "the disk of /h and /models is full"),
    "no size": (Disk(("/h",), 0, 0), WRONG, "the disk of /h is full"),
    "not there": (Disk(("/m",), problem="No such file or directory"), WARNING, "/m cannot be looked at"),
}


@pytest.mark.parametrize(("disk", "severity", "what"), DISKS.values(), ids=DISKS.keys())
def test_disks(disk: Disk, severity: str, what: str) -> None:
    assert short(of_disks([disk], CONFIG)) == [(severity, what)]


def test_how_full_a_disk_is_is_what_was_seen() -> None:
    found = only(of_disks([DISKS["under 5 GB"][0]], CONFIG))
    assert found.seen == "`df /h`: 5.0 of 50 GB are free (10%)"
    assert "a model takes several GB" in found.why


MEMORIES = {
    "enough": (Memory(64 * GIB, 30 * GIB, 0), 0, [(NOTE, "memory")]),
    "a little swap of old": (Memory(64 * GIB, 30 * GIB, 4 * GIB), 0, [(NOTE, "memory")]),
    "swapping": (Memory(64 * GIB, 15 * GIB, GIB), 0, [(WARNING, "the machine is swapping")]),
    "little": (Memory(64 * GIB, 6 * GIB, 0), 0, [(WARNING, "little memory is left")]),
    "ranks may use all": (Memory(64 * GIB, 30 * GIB, 0), 64 * GIB, [(NOTE, "memory")]),
    "ranks may use more": (
        Memory(64 * GIB, 30 * GIB, 0),
        65 * GIB,
        [(WARNING, "ranks are promised more memory than there is")],
    ),
}


@pytest.mark.parametrize(("memory", "wanted_bytes", "expected"), MEMORIES.values(), ids=MEMORIES.keys())
def test_memory(memory: Memory, wanted_bytes: int, expected: list[tuple[str, str]]) -> None:
    assert short(of_memory(memory, wanted_bytes, CONFIG)) == expected


ENGINES = {
    "a real BLAS": (Engine("/usr/lib/libopenblas.so.0", True, "0.32.4"), NOTE, "ranks compute with"),
    "the wheel's": (Engine("netlib of the wheel", False, "0.32.4"), WARNING, "ranks compute slowly here"),
    "no mlx": (Engine("/usr/lib/libopenblas.so.0", True, ""), WARNING, "mlx is not installed"),
    "cannot be asked": (None, WARNING, "what a rank would compute with cannot be told"),
}


@pytest.mark.parametrize(("engine", "severity", "what"), ENGINES.values(), ids=ENGINES.keys())
def test_the_engine(engine: Engine | None, severity: str, what: str) -> None:
    assert short(of_engine(engine)) == [(severity, what)]


def test_what_blas_computes_is_shown() -> None:
    assert "0.32.4, /usr/lib/libopenblas.so.0" in only(of_engine(ENGINES["a real BLAS"][0])).why


LIMITS = {
    "enough": (1024, 1024, False, None),
    "no limit": (sys.maxsize, sys.maxsize, False, None),
    "a Mac's shell": (256, sys.maxsize, True, "ulimit -n 8192"),
    "soft, with a hard limit near": (256, 2000, False, "ulimit -n 2000"),
    "hard": (256, 512, False, "limits.conf"),
    "hard on a Mac": (256, 512, True, "launchctl limit maxfiles"),
}


@pytest.mark.parametrize(("soft", "hard", "is_mac", "remedy"), LIMITS.values(), ids=LIMITS.keys())
def test_open_files(soft: int, hard: int, is_mac: bool, remedy: str | None) -> None:
    found = of_file_limit(soft, hard, is_mac)
    assert short(found) == ([] if remedy is None else [(WARNING, "few open files are allowed")])
    assert not remedy or remedy in found[0].remedy


def test_one_port_for_two_is_said_before_they_start() -> None:
    ports = {"discovery": 7401, "topology": 7402, "discovery metrics": 7501, "gateway": 7501, "topology echo": 7412}
    found = only(of_ports(ports, CONFIG))
    assert found.what == "discovery metrics and gateway have the same port"
    assert "7501" in found.why
    assert of_ports({"discovery": 7401, "topology": 7402}, CONFIG) == []


BLOCKED = {
    "by a stranger": (
        Blocked("scheduler", "127.0.0.1", 7403, errno.EADDRINUSE, NGINX),
        "port 7403 (scheduler) is taken",
        "pid 12 (nginx)",
        "kill 12",
    ),
    "by another home's role": (
        Blocked("scheduler metrics", "127.0.0.1", 7503, errno.EADDRINUSE, OURS),
        "port 7503 (scheduler metrics) is taken",
        "pid 13 (thunderline scheduler)",
        "--base-port N",
    ),
    "by nobody knows whom": (
        Blocked("gateway", "127.0.0.1", 8000, errno.EADDRINUSE),
        "port 8000 (gateway) is taken",
        "another process",
        "lsof -i :8000",
    ),
    "by an address that is gone": (
        Blocked("runner", "192.168.4.1", 7404, errno.EADDRNOTAVAIL),
        "runner cannot listen on 192.168.4.1:7404",
        "no address of this machine",
        "[node] bind",
    ),
    "by an address for metrics that is gone": (
        Blocked("runner metrics", "192.168.4.1", 7504, errno.EADDRNOTAVAIL),
        "runner metrics cannot listen on 192.168.4.1:7504",
        "no address of this machine",
        "[node] metrics_bind",
    ),
    "by the system": (
        Blocked("gateway", "127.0.0.1", 80, errno.EACCES),
        "gateway cannot listen on 127.0.0.1:80",
        "root",
        "[gateway]",
    ),
    "by something else": (
        Blocked("gateway", "nowhere", 8000, errno.EINVAL),
        "gateway cannot listen on nowhere:8000",
        "EINVAL",
        "[gateway] bind",
    ),
}


@pytest.mark.parametrize(("blocked", "what", "why", "remedy"), BLOCKED.values(), ids=BLOCKED.keys())
def test_a_port_on_which_a_role_could_not_listen(blocked: Blocked, what: str, why: str, remedy: str) -> None:
    found = of_blocked(blocked, CONFIG)
    assert short([found]) == [(WRONG, what)]
    assert why in found.why
    assert remedy in found.remedy
