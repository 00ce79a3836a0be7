"""Labs side by side, each with its own hosts; and nothing is left of one, however it ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from installation import until
from lab import namespaces, probes, verbs
from lab.needs import demand_here
from lab.network import Lab, lab


def ours() -> set[str]:
    """Namespaces of this process's labs."""
    mine = namespaces.prefix(0).rpartition("-")[0] + "-"
    return {path.name for path in namespaces.NAMED.glob(f"{mine}*")} if namespaces.NAMED.is_dir() else set()


def test_two_labs_with_the_same_hosts_and_addresses(net: Lab) -> None:
    with lab() as beside:
        cables = []
        for one in (net, beside):
            a, b = one.host("a"), one.host("b")
            cables.append((one, a, b, one.cable(a, b)))
        verbs.cut(net, cables[0][3])
        _, a, b, cable = cables[1]
        assert probes.rtt_s(a, b, b.address(cable)) is not None
        assert net.hosts["a"].namespace != a.namespace


def test_nothing_is_left() -> None:
    demand_here()
    before = ours()
    with lab() as net:
        a, b = net.host("a"), net.host("b")
        net.tunnel(a, b)
        verbs.delay(net, net.cable(a, b), 0.005)
        # One that does not hear SIGTERM, and one that it started in a session of its own.
        stubborn = "import signal, subprocess, sys, time; signal.signal(15, signal.SIG_IGN); "
        child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'], start_new_session=True); "
        process = a.start(sys.executable, "-c", f"{stubborn}{child}print('up', flush=True); time.sleep(1000)")
        until("the process and its child", lambda: process.poll() is None and len(a.pids()) == 2, 10)
        living = [*a.pids(), *(one.pid for one in psutil.Process().children(recursive=True))]
    assert ours() == before
    assert not [pid for pid in living if psutil.pid_exists(pid) and not _is_zombie(pid)]


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_test_that_fails_leaves_nothing_either() -> None:
    demand_here()
    before = ours()
    with pytest.raises(ZeroDivisionError), lab() as net:
        net.cable(net.host("a"), net.host("b"))
        raise ZeroDivisionError
    assert ours() == before


def test_what_a_killed_lab_left_is_swept_by_the_next() -> None:
    demand_here()
    script = "from lab.network import Lab; n = Lab(); n.build(); n.host('a'); print(n._room, flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        room = process.stdout.readline().strip()
        with lab():
            # Its process lives: it is none of ours.
            assert namespaces.exists(room)
        os.kill(process.pid, signal.SIGKILL)
    assert namespaces.exists(room)
    with lab():
        assert not namespaces.exists(room)


def test_a_process_sees_its_own_hosts_interfaces(net: Lab) -> None:
    a, b = net.host("a"), net.host("b")
    net.cable(a, b)
    found = a.run(sys.executable, "-c", "import os; print(sorted(os.listdir('/sys/class/net')))")
    assert "cable0" in found.stdout
    assert "eth0" not in found.stdout


def test_a_log_is_kept(net: Lab, tmp_path: Path) -> None:
    a = net.host("a")
    process = a.start(sys.executable, "-c", "print('hello')", log=tmp_path / "log")
    assert process.wait(20) == 0
    assert (tmp_path / "log").read_text() == "hello\n"


def test_a_cable_has_the_names_that_its_ends_give_it(net: Lab) -> None:
    a, b = net.host("a"), net.host("b")
    cable = net.cable(a, b, interface=("en3", "en2"))
    assert (a.interface(cable), b.interface(cable)) == ("en3", "en2")
    assert probes.arrives(a, b, b.address(cable)) == "en2"
    assert probes.leaves_by(a, b.address(cable)) == "en3"


def test_who_is_behind_a_hub_reaches_its_owner_alone(net: Lab) -> None:
    a, b, c = (net.host(name) for name in "abc")
    hub = net.lan(a, b, c, interface=("en5", "en2", "en4"))
    hub.isolate(b.namespace, c.namespace)
    for host in (b, c):
        assert probes.rtt_s(a, host, host.address(hub)) is not None
        assert probes.rtt_s(host, a, a.address(hub)) is not None
    assert probes.rtt_s(b, c, c.address(hub)) is None


def test_a_bridge_takes_the_address_of_its_member(net: Lab) -> None:
    a, b = net.host("a"), net.host("b")
    cable = net.cable(a, b, interface=("en3", "en2"))
    net.bridge(b, cable, "bridge0")
    assert b.interface(cable) == "bridge0"
    assert b.media == {"bridge0": cable}
    assert probes.rtt_s(a, b, b.address(cable)) is not None
    assert probes.leaves_by(b, a.address(cable)) == "bridge0"
