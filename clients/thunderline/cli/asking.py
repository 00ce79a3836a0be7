"""How a command reads its settings, asks a role of this node, and says in one line why it could not."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from thunderline.cli import saying
from thunderline.cluster.errors import ClusterError, Unreachable
from thunderline.process import settings as settings_module
from thunderline.process.entry import FAILED, USAGE
from thunderline.process.home import remembered_ports
from thunderline.process.settings import Settings, SettingsError

T = TypeVar("T")

Home = Annotated[Path | None, typer.Option(help="this node's state (default: $THUNDERLINE_HOME or ~/.thunderline)")]
Json = Annotated[bool, typer.Option("--json", help="print the proto's JSON")]


def refuse(text: str, code: int = FAILED) -> NoReturn:
    saying.error(" ".join(text.split()))
    raise typer.Exit(code)


def settings(home: Path | None, flags: dict[str, dict[str, Any]] | None = None) -> Settings:
    try:
        return settings_module.read(flags=flags, home=home)
    except SettingsError as error:
        refuse(str(error), USAGE)


def target(home: Path | None, role: str) -> str:
    """Where a role of this home serves gRPC: as the `up` that runs in it has said, else as the settings say."""
    found = settings(home)
    if not found.home.is_dir():
        refuse(f"there is no {found.home}: start `thunderline up` there first, or set THUNDERLINE_HOME")
    port = remembered_ports(found.home).get(role, getattr(found, role).port)
    return f"{found.host}:{port}"


def run(work: Coroutine[Any, Any, T], target: str) -> T:
    """The result, or one line that says what to do next."""
    try:
        return asyncio.run(work)
    except Unreachable:
        refuse(f"nothing answers at {target}: is `thunderline up` running, with this home and these ports?")
    except ClusterError as error:
        refuse(error.message)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
