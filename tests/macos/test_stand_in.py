"""Stand-in commands: what is recorded is what they do, under each name."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from installation import until
from macos.recording import file_name
from macos.standing_in import COMMANDS, StandIns, main

SYSCTL = "sysctl hw.model machdep.cpu.brand_string hw.memsize iogpu.wired_limit_mb"


def recording(folder: Path, **files: str) -> Path:
    """`files` by name, with `__` for the dot before the ending."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def run(made: StandIns, *words: str, timeout_s: float = 20) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **made.environment}
    program = shutil.which(words[0], path=environment["PATH"]) or words[0]
    return subprocess.run(
        [program, *words[1:]], env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )


@pytest.fixture
def made(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path / "bin")


def test_what_is_recorded_is_printed(made: StandIns, tmp_path: Path) -> None:
    made.show(recording(tmp_path / "mac", rdma_ctl_status__txt="enabled\n", sw_vers__txt=""))
    done = run(made, "rdma_ctl", "status")
    assert (done.returncode, done.stdout, done.stderr) == (0, "enabled\n", "")
    assert run(made, "sw_vers").stdout == ""
    assert made.calls() == ["rdma_ctl status", "sw_vers"]


def test_it_ends_and_complains_as_recorded(made: StandIns, tmp_path: Path) -> None:
    mac = tmp_path / "mac"
    mac.mkdir()
    name = file_name(SYSCTL.split())
    for ending, text in {"txt": "hw.model: Mac16,11\n", "stderr": "sysctl: unknown oid\n", "exit": "1\n"}.items():
        (mac / f"{name}.{ending}").write_text(text)
    made.show(mac)
    done = run(made, *SYSCTL.split())
    assert (done.returncode, done.stdout, done.stderr) == (1, "hw.model: Mac16,11\n", "sysctl: unknown oid\n")


def test_what_was_not_recorded_says_so(made: StandIns, tmp_path: Path) -> None:
    made.show(recording(tmp_path / "mac"))
    done = run(made, "networksetup", "-listallhardwareports")
    assert (done.returncode, done.stdout) == (1, "")
    assert "not recorded" in done.stderr


NAMES = {
    "words": ["networksetup", "-listallhardwareports"],
    "a word with a space": ["networksetup", "-getnetworkserviceenabled", "Thunderbolt Bridge"],
    "signs": ["networksetup", "-getnetworkserviceenabled", "Anna's (old) Bridge/2"],
    "letters beyond ASCII": ["networksetup", "-getnetworkserviceenabled", "Brücke"],
}


@pytest.mark.parametrize("words", NAMES.values(), ids=NAMES.keys())
def test_a_recording_and_its_stand_in_give_a_command_line_one_name(
    made: StandIns, tmp_path: Path, words: list[str]
) -> None:
    mac = recording(tmp_path / "mac")
    (mac / f"{file_name(words)}.txt").write_text("here\n")
    made.show(mac)
    assert run(made, *words).stdout == "here\n"


def test_a_missing_command_is_not_there_and_comes_back(made: StandIns, tmp_path: Path) -> None:
    before = recording(tmp_path / "before", rdma_ctl_status__missing="", ibv_devices__txt="")
    after = recording(tmp_path / "after", rdma_ctl_status__txt="disabled\n")
    made.show(before)
    with pytest.raises(FileNotFoundError):
        run(made, "rdma_ctl", "status")
    made.show(before, after)
    assert run(made, "rdma_ctl", "status").stdout == "disabled\n"
    assert sorted(one.name for one in made.folder.iterdir() if one.name in COMMANDS) == sorted(COMMANDS)


def test_a_command_that_would_not_be_missing_here_is_refused(tmp_path: Path) -> None:
    machine = StandIns(tmp_path / "machine")
    machine.show(recording(tmp_path / "other"))
    made = StandIns(tmp_path / "bin", f"{machine.folder}:{machine.path}")
    with pytest.raises(ValueError, match="ibv_devinfo: recorded as missing"):
        made.show(recording(tmp_path / "mac", ibv_devinfo__missing=""))


def test_of_thunderline_only_what_was_recorded_is_stood_in_for(tmp_path: Path) -> None:
    real = tmp_path / "real" / "thunderline"
    real.parent.mkdir()
    real.write_text('#!/bin/sh\necho "really $*"\n')
    real.chmod(0o755)
    made = StandIns(tmp_path / "bin", f"{real.parent}:{os.environ['PATH']}")
    mac = recording(tmp_path / "mac")
    made.show(mac)
    assert not (made.folder / "thunderline").exists()
    (mac / f"{file_name(['thunderline', 'rank', '--probe'])}.txt").write_text('{"backends": ["ring", "jaccl"]}\n')
    made.show(mac)
    assert run(made, "thunderline", "rank", "--probe").stdout == '{"backends": ["ring", "jaccl"]}\n'
    assert run(made, "thunderline", "doctor", "--all").stdout == "really doctor --all\n"


def test_one_that_hangs_holds_its_output_until_its_group_is_killed(made: StandIns, tmp_path: Path) -> None:
    made.show(recording(tmp_path / "mac", ibv_devinfo__hangs=""))
    process = subprocess.Popen(
        [made.folder / "ibv_devinfo"], stdout=subprocess.PIPE, start_new_session=True, env=os.environ
    )
    with process:
        until("it was called", made.calls, 10)
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=0.3)
        os.killpg(process.pid, 9)
        assert process.communicate(timeout=5)[0] == b""


def test_one_that_takes_long_takes_that_long(made: StandIns, tmp_path: Path) -> None:
    made.show(recording(tmp_path / "mac", sw_vers__txt="", delay="0.5\n"))
    begun_s = time.monotonic()
    run(made, "sw_vers")
    assert time.monotonic() - begun_s >= 0.5
    made.take_s(0)
    assert run(made, "sw_vers").returncode == 0


def test_a_later_recording_wins_by_the_command_line(made: StandIns, tmp_path: Path) -> None:
    first = recording(tmp_path / "first", ibv_devinfo__txt="fine\n", ibv_devices__txt="two\n", ibv_devices__exit="3\n")
    second = recording(tmp_path / "second", ibv_devices__txt="none\n")
    made.show(first, second)
    assert run(made, "ibv_devinfo").stdout == "fine\n"
    done = run(made, "ibv_devices")
    assert (done.returncode, done.stdout) == (0, "none\n")


ROUTES = {
    "IPv4": (["route", "-n", "get", "127.0.0.1"], "lo"),
    "IPv6": (["route", "-n", "get", "-inet6", "::1"], "lo"),
}


@pytest.mark.skipif(shutil.which("ip") is None, reason="routes are read by ip, of Linux")
@pytest.mark.parametrize(("words", "interface"), ROUTES.values(), ids=ROUTES.keys())
def test_routes_are_this_machines(made: StandIns, tmp_path: Path, words: list[str], interface: str) -> None:
    made.show(recording(tmp_path / "mac"))
    done = run(made, *words)
    assert f"\n  interface: {interface}\n" in done.stdout, done
    assert f"route to: {words[-1]}\n" in done.stdout


def test_no_route_is_said_as_macos_does(made: StandIns, tmp_path: Path) -> None:
    made.show(recording(tmp_path / "mac"))
    done = run(made, "route", "-n", "get", "nonsense")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "route: writing to routing socket: not in table\n"


def test_a_contributor_is_told_how_to_use_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mac = recording(tmp_path / "mac", sw_vers__txt="ProductName:\t\tmacOS\n")
    assert main([str(tmp_path / "bin"), str(mac)]) == 0
    assert f'PATH="{tmp_path}/bin:$PATH" THUNDERLINE_NODE_PLATFORM=darwin' in capsys.readouterr().out
    assert run(StandIns(tmp_path / "bin"), "sw_vers").stdout.startswith("ProductName")
    assert main([]) == 2
