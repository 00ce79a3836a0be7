"""Settings: which layer wins, and what is refused, by name."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

from thunderline.cluster.limits import DEFAULTS, MAY_BE_ZERO, Limits
from thunderline.process.settings import SECTIONS, SettingsError, default_home, parse_role, read

PORT = "THUNDERLINE_GATEWAY_PORT"


def test_without_anything_the_defaults_of_the_design_hold(tmp_path: Path) -> None:
    settings = read({}, home=tmp_path)
    ports = [getattr(settings, role).port for role in ("discovery", "topology", "scheduler", "runner", "gateway")]
    assert ports == [7401, 7402, 7403, 7404, 8000]
    assert (settings.node.bind, settings.node.metrics_bind, settings.gateway.bind) == ("127.0.0.1",) * 3
    assert settings.limits == DEFAULTS


# config.toml's text, the variable's, the flag's value -> the port.
LAYERS: dict[str, tuple[str | None, str | None, int | None, int]] = {
    "the file wins over the default": ("9001", None, None, 9001),
    "the environment wins over the file": ("9001", "9002", None, 9002),
    "a flag wins over the environment": (None, "9002", 9003, 9003),
    "a flag wins over all": ("9001", "9002", 9003, 9003),
    "a flag wins over the file": ("9001", None, 9003, 9003),
}


@pytest.mark.parametrize(("file", "variable", "flag", "expected"), LAYERS.values(), ids=LAYERS.keys())
def test_a_later_layer_wins(
    tmp_path: Path, file: str | None, variable: str | None, flag: int | None, expected: int
) -> None:
    if file:
        (tmp_path / "config.toml").write_text(f"[gateway]\nport = {file}\n")
    environ = {PORT: variable} if variable else {}
    flags = {"gateway": {"port": flag}} if flag else None
    assert read(environ, flags, tmp_path).gateway.port == expected


def test_a_layer_replaces_only_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[gateway]\nport = 9001\nbind = "127.0.0.2"\n[limits]\ndrain_s = 3\n')
    settings = read({"THUNDERLINE_GATEWAY_PORT": "9002", "THUNDERLINE_LIMITS_QUEUE_SIZE_MAX": "7"}, home=tmp_path)
    assert (settings.gateway.bind, settings.gateway.port) == ("127.0.0.2", 9002)
    assert settings.limits == dataclasses.replace(DEFAULTS, drain_s=3, queue_size_max=7)


@pytest.mark.parametrize(
    ("told", "expected"), [("", sys.platform), ("darwin", "darwin"), ("linux", "linux")], ids=["own", "darwin", "linux"]
)
def test_whose_commands_are_asked_can_be_forced(tmp_path: Path, told: str, expected: str) -> None:
    assert read({"THUNDERLINE_NODE_PLATFORM": told}, home=tmp_path).platform == expected


# config.toml, environment -> words that the one line must hold.
REFUSED: dict[str, tuple[str, dict[str, str], list[str]]] = {
    "an unknown key of the file": ("[gateway]\nprot = 1\n", {}, ["config.toml", "'prot'", "[gateway]", "port"]),
    "an unknown section of the file": ("[gatway]\nport = 1\n", {}, ["config.toml", "[gatway]", "gateway"]),
    "a key outside every section": ("port = 1\n", {}, ["config.toml", "[port]"]),
    "a section that is a number": ("gateway = 1\n", {}, ["config.toml", "gateway", "section"]),
    "a file that is no TOML": ("[gateway\n", {}, ["config.toml"]),
    "an unknown limit": ("[limits]\nhurry_s = 1\n", {}, ["config.toml", "'hurry_s'", "[limits]"]),
    "a negative limit": ("[limits]\ndrain_s = -1\n", {}, ["config.toml", "drain_s", "-1"]),
    "a platform that is none": ('[node]\nplatform = "beos"\n', {}, ["config.toml", "platform", "'beos'"]),
    "a limit that is text": ('[limits]\ndrain_s = "soon"\n', {}, ["config.toml", "drain_s", "'soon'"]),
    "silence that is judged before a heartbeat is due": (
        "[limits]\nheartbeat_s = 2\n",
        {},
        ["config.toml and defaults", "heartbeat_s = 2 has to be below suspect_s = 2"],
    ),
    "a member that is DEAD before it is SUSPECT": (
        "[limits]\nsuspect_s = 9\n",
        {"THUNDERLINE_LIMITS_DEAD_S": "5"},
        ["config.toml and environment", "[limits]", "suspect_s = 9 has to be below dead_s = 5"],
    ),
    "a least wait above the longest": (
        "",
        {"THUNDERLINE_LIMITS_RESTART_WAIT_MIN_S": "11"},
        ["restart_wait_min_s = 11 has to be at most restart_wait_max_s = 10"],
    ),
    "the same of epochs": (
        "",
        {"THUNDERLINE_LIMITS_EPOCH_WAIT_MAX_S": "0.25"},
        ["epoch_wait_min_s = 0.5 has to be at most epoch_wait_max_s = 0.25"],
    ),
    "a port that is none": ("[gateway]\nport = 65536\n", {}, ["config.toml", "port", "65536"]),
    "a gRPC port without room for its metrics": ("[runner]\nport = 65500\n", {}, ["[runner] port", "65500"]),
    "an unknown variable": ("", {"THUNDERLINE_GATEWAY_PROT": "1"}, ["environment", "THUNDERLINE_GATEWAY_PROT"]),
    "a variable without a section": ("", {"THUNDERLINE_PORT": "1"}, ["environment", "THUNDERLINE_PORT"]),
    "a variable whose value is wrong": ("", {PORT: "many"}, ["environment", "port", "'many'"]),
    "an empty variable": ("", {PORT: ""}, ["environment", "port"]),
    "a log level that there is not": ("", {"THUNDERLINE_NODE_LOG_LEVEL": "loud"}, ["environment", "log_level"]),
}


@pytest.mark.parametrize(("file", "environ", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_wrong_is_named_in_one_line(
    tmp_path: Path, file: str, environ: dict[str, str], words: list[str]
) -> None:
    (tmp_path / "config.toml").write_text(file)
    with pytest.raises(SettingsError) as refused:
        read(environ, home=tmp_path)
    assert [word for word in words if word not in str(refused.value)] == []


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(SettingsError, match=r"config\.toml"):
        read({}, home=tmp_path)


ROOTS = {
    "as paths are, by colons": ("/models:/more", ["/models", "/more"]),
    "as JSON, for a path with a colon": ('["/mo:dels"]', ["/mo:dels"]),
    "one path": ("/models", ["/models"]),
    "none": ("", []),
    "empty parts are no paths": (":/models:", ["/models"]),
}


@pytest.mark.parametrize(("text", "expected"), ROOTS.values(), ids=ROOTS.keys())
def test_a_list_in_a_variable(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert read({"THUNDERLINE_RUNNER_MODEL_ROOTS": text}, home=tmp_path).runner.model_roots == expected


HOMES: dict[str, tuple[dict[str, str], Path]] = {
    "the variable": ({"THUNDERLINE_HOME": "/srv/thunderline"}, Path("/srv/thunderline")),
    "a tilde": ({"THUNDERLINE_HOME": "~/lines"}, Path.home() / "lines"),
    "a relative path": ({"THUNDERLINE_HOME": "lines"}, Path.cwd() / "lines"),
    "an empty variable": ({"THUNDERLINE_HOME": ""}, Path.home() / ".thunderline"),
    "nothing": ({}, Path.home() / ".thunderline"),
}


@pytest.mark.parametrize(("environ", "expected"), HOMES.values(), ids=HOMES.keys())
def test_the_home(environ: dict[str, str], expected: Path) -> None:
    assert default_home(environ) == expected


def test_everything_of_a_node_lies_under_its_home(tmp_path: Path) -> None:
    settings = read({"THUNDERLINE_LIFELINE_FD": "7", "PATH": "/bin"}, home=tmp_path)
    assert {folder.parent for folder in (settings.models, settings.run, settings.logs)} == {tmp_path}


HOSTS = {
    "where they listen": ("127.0.0.2", "127.0.0.2"),
    "by loopback when they listen everywhere": ("0.0.0.0", "127.0.0.1"),
    "by loopback when they listen everywhere, also by IPv6": ("::", "127.0.0.1"),
}


@pytest.mark.parametrize(("bind", "expected"), HOSTS.values(), ids=HOSTS.keys())
def test_the_roles_of_a_node_find_each_other(tmp_path: Path, bind: str, expected: str) -> None:
    assert read({"THUNDERLINE_NODE_BIND": bind}, home=tmp_path).host == expected


# A role, its flags, what they set.
FLAGS: dict[str, tuple[str, list[str], tuple[str, str], Any]] = {
    "a role's own port": ("discovery", ["--port", "9401"], ("discovery", "port"), 9401),
    "the node's address, as a gRPC role says it": ("discovery", ["--bind", "127.0.0.3"], ("node", "bind"), "127.0.0.3"),
    "the gateway's own address": ("gateway", ["--bind", "127.0.0.3"], ("gateway", "bind"), "127.0.0.3"),
    "the node's address, as the gateway says it": (
        "gateway",
        ["--node-bind", "127.0.0.3"],
        ("node", "bind"),
        "127.0.0.3",
    ),
    "a list": ("runner", ["--model-roots", "/a:/b"], ("runner", "model_roots"), ["/a", "/b"]),
    "the cluster's name": ("topology", ["--cluster-name", "attic"], ("cluster", "name"), "attic"),
    "the log level": ("scheduler", ["--log-level", "debug"], ("node", "log_level"), "debug"),
}


@pytest.mark.parametrize(("role", "argv", "where", "expected"), FLAGS.values(), ids=FLAGS.keys())
def test_flags(tmp_path: Path, role: str, argv: list[str], where: tuple[str, str], expected: object) -> None:
    settings = parse_role(role, "A role.", ["--home", str(tmp_path), *argv])
    section, key = where
    assert getattr(getattr(settings, section), key) == expected


@pytest.mark.parametrize("role", ["discovery", "topology", "scheduler", "runner", "gateway"])
def test_help_documents_every_setting_of_the_role(role: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_role(role, "A role.", ["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    flags = [f"--{key.replace('_', '-')}" for key in SECTIONS[role].model_fields]
    assert [flag for flag in ["--home", *flags] if flag not in text] == []


def test_an_unknown_flag_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_role("gateway", "A role.", ["--prot", "9000"])
    assert ended.value.code == 2
    assert "--prot" in capsys.readouterr().err


def test_a_wrong_flag_is_said_to_be_a_flag(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"flags: \[gateway\] port = 'many'"):
        parse_role("gateway", "A role.", ["--home", str(tmp_path), "--port", "many"])


of_every_limit = pytest.mark.parametrize("field", dataclasses.fields(Limits), ids=lambda field: field.name)


@of_every_limit
def test_every_limit_is_a_setting(tmp_path: Path, field: "dataclasses.Field[Any]") -> None:
    default = getattr(DEFAULTS, field.name)
    # So much more keeps it in order with the others.
    value = type(default)(1.5 * default)
    settings = read({f"THUNDERLINE_LIMITS_{field.name.upper()}": str(value)}, home=tmp_path)
    assert getattr(settings.limits, field.name) == value != default


@of_every_limit
def test_a_limit_is_0_only_where_that_means_something(tmp_path: Path, field: "dataclasses.Field[Any]") -> None:
    environ = {f"THUNDERLINE_LIMITS_{field.name.upper()}": "0"}
    if field.name in MAY_BE_ZERO:
        assert getattr(read(environ, home=tmp_path).limits, field.name) == 0
        return
    with pytest.raises(SettingsError, match=rf"environment: \[limits\] {field.name} = '0'.*greater than 0"):
        read(environ, home=tmp_path)


def test_the_limits_that_may_be_0_are_limits() -> None:
    assert {field.name for field in dataclasses.fields(Limits)} >= MAY_BE_ZERO


def test_a_seed_without_a_port_has_the_default_one_whatever_our_own_is(tmp_path: Path) -> None:
    env = {"THUNDERLINE_DISCOVERY_PORT": "9000", "THUNDERLINE_DISCOVERY_SEEDS": "ada,bob:9,[fd00::1]"}
    found = read(env, home=tmp_path).discovery
    assert found.seed_targets == ("ada:7401", "bob:9", "[fd00::1]:7401")
