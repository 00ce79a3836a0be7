"""How a command reads its settings, asks a role, and says in one line why it could not."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from thunderline.cli import saying
from thunderline.client import SchedulerClient
from thunderline.client.connection import Connection
from thunderline.client.reaching import OwnNode, scheduler_of
from thunderline.cluster import NodeId, addresses
from thunderline.cluster.errors import ClusterError, Unreachable
from thunderline.process import settings as settings_module
from thunderline.process.entry import FAILED, USAGE, CannotStart
from thunderline.process.home import node_id, remembered_ports
from thunderline.process.settings import Settings, SettingsError
from thunderline.process.trust import Wallet

T = TypeVar("T")
C = TypeVar("C", bound=Connection)

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


def model_word(model: str) -> str:
    """As the scheduler takes it: a folder that is here by its whole path, anything else as it is."""
    if not model.strip():
        # It would be this folder.
        refuse("MODEL is empty", USAGE)
    try:
        folder = Path(model).expanduser()
        return str(folder.resolve()) if folder.is_dir() else model
    except (OSError, RuntimeError):
        # Too long for a path, or of a user that nobody knows: the scheduler has a word for it.
        return model


def wallet(home: Path | None) -> Wallet:
    """What this home's roles show each other, and us, on a node of a cluster."""
    found = settings(home)
    return Wallet(found.home, found.cluster.name)


def own_node(home: Path | None) -> OwnNode:
    """Where the roles of this home are: as the `up` that runs in it has said, else as the settings say."""
    found = settings(home)
    if not found.home.is_dir():
        refuse(f"there is no {found.home}: start `thunderline up` there first, or set THUNDERLINE_HOME")
    try:
        # It would be made by being asked for.
        node = node_id(found.home) if (found.home / "node.json").exists() else NodeId("")
    except (OSError, CannotStart) as error:
        refuse(str(error))
    return OwnNode(
        node=node,
        scheduler=NodeId(found.cluster.scheduler) or node,
        wallet=Wallet(found.home, found.cluster.name),
        discovery_target=_target(found, "discovery"),
        topology_target=_target(found, "topology"),
        scheduler_target=_target(found, "scheduler"),
    )


def _target(found: Settings, role: str) -> str:
    port = remembered_ports(found.home).get(role, getattr(found, role).port)
    return addresses.target(found.host, port)


def target(home: Path | None, role: str) -> str:
    """Where a role of this home serves gRPC. Who asks shows this home's `wallet` there."""
    own = own_node(home)
    if role == "scheduler" and not own.is_scheduler_node:
        refuse(f"this is for the scheduler node, {own.scheduler}: run it there")
    return _target(settings(home), role)


def ask(home: Path | None, role: str, kind: type[C], work: Callable[[C], Coroutine[Any, Any, T]]) -> T:
    """Asks a role of this home: `ask(home, "discovery", DiscoveryClient, lambda discovery: discovery.roster())`."""
    where, shown, own = target(home, role), wallet(home), own_node(home)

    async def asked() -> T:
        async with kind(where, shown, own.node or None) as client:
            return await work(client)

    return run(asked(), where)


def ask_scheduler(home: Path | None, work: Callable[[SchedulerClient], Coroutine[Any, Any, T]]) -> T:
    """Asks the cluster's scheduler, from whichever node."""
    own = own_node(home)

    async def asked() -> T:
        async with scheduler_of(own) as scheduler:
            return await work(scheduler)

    return run(asked(), own.scheduler_target if own.is_scheduler_node else "")


def run(work: Coroutine[Any, Any, T], target: str = "") -> T:
    """The result, or one line that says what to do next. `target` is the role of this node that is asked."""
    try:
        return asyncio.run(work)
    except Unreachable as error:
        if not target:
            refuse(error.message)
        refuse(
            f"nothing answers at {target}: is `thunderline up` running, with this home and these ports? "
            "`thunderline doctor` looks further"
        )
    except ClusterError as error:
        refuse(error.message)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
