"""Settings: defaults, then what `cluster join` wrote, $THUNDERLINE_HOME/config.toml, environment, flags. A later wins.

A setting is a field of one section below; its flag, variable, TOML key and help all follow from it:
`[gateway] port = 9000`, `THUNDERLINE_GATEWAY_PORT=9000`, `thunderline gateway --port 9000`.
"""

import argparse
import dataclasses
import json
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from thunderline.cluster import limits
from thunderline.cluster.api_keys import DIGEST
from thunderline.cluster.media import Medium
from thunderline.cluster.seeds import seed_target

PREFIX = "THUNDERLINE_"
# As sys.platform has it.
DARWIN = "darwin"
# What `cluster init` and `cluster join` write, in the form of config.toml.
JOINED = "cluster/joined.toml"
# Variables with our prefix that are no settings: the home itself, and what the supervisor gives its roles.
NOT_SETTINGS = {"THUNDERLINE_HOME", "THUNDERLINE_LIFELINE_FD"}


class SettingsError(Exception):
    """A setting is unknown or wrong; the message is one line that names it and where it stands."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Port = Field(ge=1, le=65535)


class Cluster(Section):
    name: str = Field(
        "thunderline", min_length=1, max_length=64, description="name of the cluster that this node belongs to"
    )
    scheduler: str = Field("", description="node_id of the scheduler node; empty means this node")


class Node(Section):
    bind: str = Field("127.0.0.1", description="address on which the gRPC roles listen")
    metrics_bind: str = Field("127.0.0.1", description="address on which metrics are served")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="least level that is logged")
    platform: str = Field(
        "",
        pattern="^(darwin|linux)?$",
        description="system whose commands are asked about this machine, darwin or linux, for stand-ins in PATH; empty "
        "means its own",
    )


class Discovery(Section):
    port: int = Field(7401, ge=1, le=65435, description="gRPC port; metrics are at + 100")
    seeds: list[str] = Field(
        [],
        max_length=64,
        description="discoveries as HOST or HOST:PORT, for networks without multicast; separated by commas",
        json_schema_extra={"separator": ","},
    )
    mdns: bool = Field(True, description="find peers by multicast DNS, and be found; only off loopback")

    @property
    def seed_targets(self) -> tuple[str, ...]:
        """What is dialled. A seed without a port has the default one, whatever this node's own is."""
        port = int(type(self).model_fields["port"].default)
        return tuple(seed_target(one, port) for one in self.seeds)


class Topology(Section):
    port: int = Field(7402, ge=1, le=65435, description="gRPC port; metrics are at + 100")
    echo_port: int = Field(7412, ge=1, le=65535, description="TCP port of the echo that peers probe")
    media: list[str] = Field(
        [], max_length=64, description="the medium of interfaces, as eth7=THUNDERBOLT; separated by :"
    )

    @field_validator("media")
    @classmethod
    def _names_media(cls, value: list[str]) -> list[str]:
        for one in value:
            name, _, kind = one.partition("=")
            if not name or kind not in Medium.__members__:
                raise ValueError(f"{one!r} is not INTERFACE=MEDIUM, of {', '.join(Medium.__members__)}")
        return value


class Scheduler(Section):
    port: int = Field(7403, ge=1, le=65435, description="gRPC port; metrics are at + 100")
    enrollment_port: int = Field(7405, ge=1, le=65535, description="where joining nodes have their keys signed")


class Runner(Section):
    port: int = Field(7404, ge=1, le=65435, description="gRPC port; metrics are at + 100")
    model_roots: list[str] = Field(
        [], description="other folders that may hold models; separated by : (in TOML a list)"
    )
    memory_bytes: int = Field(0, ge=0, description="memory for ranks; 0 means 75%% of the machine's")


class Gateway(Section):
    bind: str = Field("127.0.0.1", description="address on which HTTP is served")
    port: int = Field(8000, ge=1, le=65535, description="HTTP port")
    api_keys: list[str] = Field(
        [],
        max_length=1024,
        description="SHA-256 digests (hex) of the keys that clients may use; none: no key is asked",
        # Somebody may write the key itself here.
        json_schema_extra={"secret": True},
    )

    @field_validator("api_keys")
    @classmethod
    def _are_digests(cls, value: list[str]) -> list[str]:
        if not all(DIGEST.fullmatch(one) for one in value):
            raise ValueError("a digest is 64 characters of 0-9 and a-f: `thunderline cluster key NAME` prints one")
        return value


def _limits_section() -> type[Section]:
    """[limits], from the one place that holds them."""
    from pydantic import create_model

    fields: dict[str, Any] = {
        field.name: (field.type if isinstance(field.type, type) else {"float": float, "int": int}[field.type],
                     _limit(field.name))
        for field in dataclasses.fields(limits.Limits)
    }  # fmt: skip
    return create_model("LimitsSection", __base__=Section, **fields)


def _limit(name: str) -> Any:
    default = getattr(limits.DEFAULTS, name)
    return Field(default, ge=0) if name in limits.MAY_BE_ZERO else Field(default, gt=0)


LimitsSection = _limits_section()

SECTIONS: dict[str, type[Section]] = {
    "cluster": Cluster,
    "node": Node,
    "discovery": Discovery,
    "topology": Topology,
    "scheduler": Scheduler,
    "runner": Runner,
    "gateway": Gateway,
    "limits": LimitsSection,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a role may read. The same on every role of a node."""

    home: Path
    cluster: Cluster
    node: Node
    discovery: Discovery
    topology: Topology
    scheduler: Scheduler
    runner: Runner
    gateway: Gateway
    limits: limits.Limits

    @property
    def host(self) -> str:
        """Where this node's own roles are reached: where they listen, or loopback when they listen everywhere."""
        return "127.0.0.1" if self.node.bind in ("0.0.0.0", "::") else self.node.bind

    @property
    def platform(self) -> str:
        """As sys.platform: whose commands and words are read here. What the kernel can do is not asked of this."""
        return self.node.platform or sys.platform

    @property
    def media(self) -> dict[str, Medium]:
        """By interface, what [topology] media says."""
        return {name: Medium[kind] for name, _, kind in (one.partition("=") for one in self.topology.media)}

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def run(self) -> Path:
        """Sockets and map files of living processes."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        return self.home / "logs"


def default_home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("THUNDERLINE_HOME") or Path.home() / ".thunderline").expanduser().absolute()


def read(
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Mapping[str, Any]] | None = None,
    home: Path | None = None,
) -> Settings:
    """All sections, layered. Raises SettingsError."""
    environ = os.environ if environ is None else environ
    home = (home or default_home(environ)).absolute()
    layers: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    origin: dict[tuple[str, str], str] = {}
    files = (home / JOINED, home / "config.toml")
    given = [("environment", _environment(environ)), ("flags", flags or {})]
    for source, tree in [*((str(file), _toml(file)) for file in files), *given]:
        for section, values in tree.items():
            if section not in SECTIONS:
                raise SettingsError(f"{source}: unknown section [{section}]; known: {', '.join(SECTIONS)}")
            if not isinstance(values, Mapping):
                raise SettingsError(f"{source}: {section} must be a section, as in [{section}]")
            layers[section].update(values)
            origin.update({(section, key): source for key in values})
    sections = {name: _section(name, kind, layers[name], origin) for name, kind in SECTIONS.items()}
    bounds = limits.Limits(**sections.pop("limits").model_dump())
    _check_order(bounds, origin)
    return Settings(home=home, limits=bounds, **sections)  # type: ignore[arg-type]


def _check_order(bounds: limits.Limits, origin: Mapping[tuple[str, str], str]) -> None:
    """Raises SettingsError."""
    if (wrong := limits.out_of_order(bounds)) is not None:
        one, how, other = wrong
        where = " and ".join(dict.fromkeys(origin.get(("limits", key), "defaults") for key in (one, other)))
        pair = f"{one} = {getattr(bounds, one):g} has to be {how} {other} = {getattr(bounds, other):g}"
        raise SettingsError(f"{where}: [limits] {pair}")


def _section(
    name: str, kind: type[Section], values: Mapping[str, Any], origin: Mapping[tuple[str, str], str]
) -> Section:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        where = origin.get((name, key), "settings")
        if first["type"] == "extra_forbidden":
            message = f"{where}: unknown key {key!r} in [{name}]; known: {', '.join(kind.model_fields)}"
        else:
            message = f"{where}: [{name}] {key} = {_shown(kind, key, first['input'])}: {first['msg']}"
        raise SettingsError(message) from None


def _shown(kind: type[Section], key: str, value: Any) -> str:
    extra = kind.model_fields[key].json_schema_extra
    return "..." if isinstance(extra, dict) and extra.get("secret") else repr(value)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None


def _environment(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    tree: dict[str, dict[str, Any]] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in NOT_SETTINGS:
            continue
        section, _, key = variable.removeprefix(PREFIX).lower().partition("_")
        kind = SECTIONS.get(section)
        if kind is None or key not in kind.model_fields:
            raise SettingsError(f"environment: {variable} is no setting; see `thunderline ROLE --help`")
        tree.setdefault(section, {})[key] = _value(kind, key, text)
    return tree


def _value(kind: type[Section], key: str, text: str) -> Any:
    """A list may be written as JSON, or separated by `:`, as paths are, or as its field says."""
    field = kind.model_fields[key]
    if not get_args(field.annotation):
        return text
    if not text.startswith("["):
        extra = field.json_schema_extra
        separator = str(extra.get("separator", ":")) if isinstance(extra, dict) else ":"
        return [part for part in text.split(separator) if part]
    try:
        return json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{key} = {_shown(kind, key, text)} is no JSON list: {error}") from None


def parse_role(role: str, description: str, argv: Sequence[str]) -> Settings:
    """A role's settings from its command line; `--help` and wrong flags exit as argparse does (0 and 2).

    Raises SettingsError.
    """
    parser = argparse.ArgumentParser(
        prog=f"thunderline {role}",
        description=description,
        epilog="Each flag is also a key of its section in $THUNDERLINE_HOME/config.toml, and a variable "
        f"{PREFIX}SECTION_KEY. Flags win over variables, variables over the file.",
    )
    parser.add_argument("--home", type=Path, help="this node's state (default: $THUNDERLINE_HOME or ~/.thunderline)")
    for section in (role, "node", "cluster"):
        if section in SECTIONS:
            _add_flags(parser, section)
    given = {key: value for key, value in vars(parser.parse_args(argv)).items() if value is not None}
    home = given.pop("home", None)
    tree: dict[str, dict[str, Any]] = {}
    for joined, value in given.items():
        section, _, key = joined.partition(".")
        tree.setdefault(section, {})[key] = _value(SECTIONS[section], key, value)
    return read(flags=tree, home=home)


def _add_flags(parser: argparse.ArgumentParser, section: str) -> None:
    group = parser.add_argument_group(f"[{section}]")
    for key, field in SECTIONS[section].model_fields.items():
        flag = f"--{section}-{key}" if section == "cluster" else f"--{key}"
        if flag in parser._option_string_actions:
            flag = f"--{section}-{key}"
        default = ":".join(field.default) if isinstance(field.default, list) else field.default
        group.add_argument(
            flag.replace("_", "-"),
            dest=f"{section}.{key}",
            metavar=key.upper(),
            help=f"{field.description} (default: {'none' if default == '' else default})",
        )
