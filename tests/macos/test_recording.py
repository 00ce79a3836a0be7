"""Recording a Mac: all of its commands, and nothing that tells whose it is."""

import ast
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from macos import recording
from macos.recording import COMMANDS, ENABLED, Redactor, file_name, is_name, own_names
from macos.standing_in import OURS, StandIns
from thunderline.process.macos.commands import MAC

SCRIPT = Path(recording.__file__)
MACHINES = SCRIPT.with_name("machines")
# Whatever else this machine has in its PATH is no Mac's.
SHELL = "/usr/bin:/bin"


def record(made: StandIns, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-I", str(SCRIPT), str(folder), *words],
        env={"PATH": f"{made.folder}:{SHELL}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def made(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path / "bin")


def test_a_macs_own_python_can_run_it() -> None:
    """3.9, with nothing installed."""
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 9))
    imports = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    imports |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {one.partition(".")[0] for one in imports} <= sys.stdlib_module_names


def test_what_a_node_asks_a_mac_is_what_is_recorded() -> None:
    asked = {one.words: one.timeout_s for one in MAC if one.words[0] != OURS}
    assert dict(COMMANDS) == asked


def test_every_command_is_recorded_and_stands_in_for_the_mac(made: StandIns, tmp_path: Path) -> None:
    made.show(MACHINES / "macbook")
    done = record(made, tmp_path / "mac")
    assert done.returncode == 0, done.stderr
    wanted = [" ".join(words) for words, _ in COMMANDS] + [" ".join((*ENABLED, "Thunderbolt Bridge"))]
    assert [line for line in made.calls() if not line.startswith("route")] == wanted
    texts = {path.name for path in (tmp_path / "mac").glob("*.txt")}
    # What MLX can do there is nothing of macOS's.
    assert texts == {path.name for path in (MACHINES / "macbook").glob("*.txt")} - {"thunderline_rank_--probe.txt"}
    assert "Look through" in done.stdout
    again = StandIns(tmp_path / "again")
    again.show(tmp_path / "mac")
    assert record(again, tmp_path / "second").returncode == 0
    for name in texts:
        lines = [(tmp_path / folder / name).read_text().splitlines() for folder in ("mac", "second")]
        assert len(lines[0]) == len(lines[1]), name


def test_both_ends_of_a_cable_still_match_with_one_salt(made: StandIns, tmp_path: Path) -> None:
    uuid = "0F7C1D52-5E0B-4B7A-9C11-0000A1B2C3D4"
    for number, name in enumerate(("one", "other")):
        folder = tmp_path / f"real-{name}"
        folder.mkdir()
        (folder / "ibv_devices.txt").write_text(f"{name} {uuid} {number}\n")
        made.show(folder)
        assert record(made, tmp_path / name, "--salt", "some words").returncode == 0
    found = [(tmp_path / name / "ibv_devices.txt").read_text().split()[1] for name in ("one", "other")]
    assert found[0] == found[1] != uuid
    made.show(tmp_path / "real-one")
    record(made, tmp_path / "without", "--salt", "others")
    assert (tmp_path / "without" / "ibv_devices.txt").read_text().split()[1] not in (uuid, found[0])


def test_what_is_missing_or_fails_is_recorded_so(made: StandIns, tmp_path: Path) -> None:
    mac = tmp_path / "real"
    mac.mkdir()
    (mac / "rdma_ctl_status.missing").write_text("")
    (mac / "sw_vers.txt").write_text("ProductName:\t\tmacOS\n")
    (mac / "sw_vers.stderr").write_text("a complaint\n")
    (mac / "sw_vers.exit").write_text("64\n")
    made.show(mac)
    assert "rdma_ctl status: missing" in record(made, tmp_path / "mac").stdout
    names = {path.name for path in (tmp_path / "mac").iterdir()}
    assert {"rdma_ctl_status.missing", "sw_vers.txt", "sw_vers.stderr", "sw_vers.exit"} <= names
    assert "rdma_ctl_status.txt" not in names
    assert (tmp_path / "mac" / "sw_vers.exit").read_text() == "64\n"


def test_what_hangs_is_given_up(made: StandIns, tmp_path: Path) -> None:
    mac = tmp_path / "real"
    mac.mkdir()
    (mac / "ibv_devinfo.hangs").write_text("")
    made.show(mac)
    begun_s = time.monotonic()
    assert recording.run([str(made.folder / "ibv_devinfo")], 0.5) == recording.Recorded("hangs")
    assert time.monotonic() - begun_s < 5
    recording.keep(tmp_path, ["ibv_devinfo"], recording.Recorded("hangs"), Redactor("salt", {}))
    assert (tmp_path / "ibv_devinfo.hangs").exists()


def test_a_folder_with_something_in_it_is_left_alone(made: StandIns, tmp_path: Path) -> None:
    made.show(MACHINES / "mini")
    done = record(made, tmp_path)
    assert done.returncode == 2
    assert "is there already" in done.stderr


# What is printed, and what of it must not be left.
SECRETS = {
    "a UUID": ('"domain_uuid_key" : "3B8C9A10-77E2-4D0F-8A55-9D1C2E3F4A5B"', "3B8C9A10-77E2-4D0F-8A55-9D1C2E3F4A5B"),
    "a UUID in small letters": ("3b8c9a10-77e2-4d0f-8a55-9d1c2e3f4a5b", "9d1c2e3f4a5b"),
    "a switch UID": ('"switch_uid_key" : "0x05AC1122334455F0"', "1122334455"),
    "a serial number": ('"serial_number" : "QX7H2L9PW1"', "QX7H2L9PW1"),
    "a disk's serial number": ('"device_serial_num_key" : "S5XYNJ0R"', "S5XYNJ0R"),
    "a node GUID": ("rdma_en2        \t9a3b5c7d1e2f4a05", "9a3b5c7d1e2f4a05"),
    "a GUID in groups": ("node_guid:\t\t9a3b:5c7d:1e2f:4a05", "9a3b:5c7d"),
    "a MAC address": ("\tether a4:cf:99:12:ab:7e ", "a4:cf:99"),
    "a public address": ("inet 8.8.4.4 netmask 0xffffff00", "8.8.4.4"),
    "an address of a VPN": ("inet 100.101.102.103 --> 100.101.102.103", "100.101.102.103"),
    "a public IPv6 address": ("inet6 2a00:1450:4001:81b::200e prefixlen 64", "2a00:1450"),
    "a private IPv6 address": ("inet6 fd3a:9b2c:11d0::17 prefixlen 64", "fd3a:9b2c"),
    "a link-local one made of a MAC address": ("inet6 fe80::a6cf:99ff:fe12:ab7e%en0 prefixlen 64", "99ff:fe12"),
    "the Mac's name": ("Annas-Studio.local", "Annas-Studio"),
    "a user's name, in other letters": ("(Hardware Port: ANNA phone, Device: en9)", "ANNA"),
}
NAMES = {"Annas-Studio": "host", "anna": "user"}


@pytest.mark.parametrize(("text", "secret"), SECRETS.values(), ids=SECRETS.keys())
def test_nothing_tells_whose_it_is(text: str, secret: str) -> None:
    redactor = Redactor("salt", NAMES)
    found = redactor.redacted(text)
    assert secret not in found
    assert len(found.split()) == len(text.split())
    assert redactor.redacted(text) == found


# Without which a recording would be of no use.
KEPT = [
    "192.168.4.21",
    "169.254.205.255",
    "10.0.0.7",
    "127.0.0.1",
    "255.255.0.0",
    "inet6 ::1 prefixlen 128",
    "inet6 fe80::1%lo0 prefixlen 64 scopeid 0x1",
    "flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500",
    "\tid 0:0:0:0:0:0 priority 0 hellotime 0 fwddelay 0",
    "hw.memsize: 549755813888",
    '"link_status_key" : "0x2"',
    '"vendor_id_key" : "0xA27"',
    '"current_speed_key" : "Up to 120 Gb/s"',
    '"lc_version_key" : "0.31.0"',
    '"device_name_key" : "Mac Studio"',
    "state:\t\t\tPORT_ACTIVE (4)",
    "(3) Thunderbolt Bridge",
    "BuildVersion:\t\t25C56",
]


@pytest.mark.parametrize("text", KEPT)
def test_what_is_nobodys_stays(text: str) -> None:
    assert Redactor("salt", NAMES).redacted(text) == text


def test_an_address_stays_of_its_kind() -> None:
    redacted = Redactor("salt", {}).redacted
    assert redacted("100.101.102.103").startswith("100.")
    assert redacted("inet6 fe80::a6cf:99ff:fe12:ab7e%en0").startswith("inet6 fe80::")
    assert redacted("fd3a:9b2c:11d0::17").startswith("fd00:")
    assert redacted("9a3b5c7d1e2f4a05") == redacted("9a3b:5c7d:1e2f:4a05").replace(":", "")


def test_json_is_still_json() -> None:
    text = (MACHINES / "macbook" / f"{file_name(COMMANDS[0][0])}.txt").read_text()
    before, after = json.loads(text), json.loads(Redactor("salt", NAMES).redacted(text))
    rows = [tree["SPThunderboltDataType"] for tree in (before, after)]
    assert [row["receptacle_1_tag"] for row in rows[0]] == [row["receptacle_1_tag"] for row in rows[1]]
    assert not {row["domain_uuid_key"] for row in rows[0]} & {row["domain_uuid_key"] for row in rows[1]}


@pytest.mark.parametrize("text", ["Mac mini", "MacBook Pro", "Mac", "me", "", "Thunderbolt"])
def test_a_model_is_no_name(text: str) -> None:
    assert not is_name(text)


def test_names_are_found_where_nothing_tells_them() -> None:
    """As on this machine, which may have no scutil."""
    assert all(invented in ("host", "user") for invented in own_names().values())
    assert is_name("Annas-Studio")
