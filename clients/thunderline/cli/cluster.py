"""`thunderline cluster ...`: who belongs to this cluster, and whom its runners obey."""

import asyncio
import json as jsonlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import typer

from thunderline.cli import adopting, founding, issuing, joining, leaving, rotating, saying
from thunderline.cli.asking import Home, ask, refuse, run, settings, target, wallet
from thunderline.client import DiscoveryClient
from thunderline.cluster import NodeId
from thunderline.cluster.errors import ClusterError
from thunderline.process.entry import CannotStart
from thunderline.process.home import node_id
from thunderline.process.settings import Settings
from thunderline.v1 import discovery_pb2

T = TypeVar("T")

# What `rotate` shows does not hang on it.
ROSTER_S = 1.0

cluster = typer.Typer(no_args_is_help=True, help="Who belongs to this cluster, and whom its runners obey.")
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


class Tellable(Protocol):
    def lines(self) -> Sequence[str]: ...

    def as_tree(self) -> dict[str, Any]: ...


def _tell(found: Tellable, json: bool) -> None:
    if json:
        print(jsonlib.dumps(found.as_tree(), indent=1, ensure_ascii=False))
        return
    for line in found.lines():
        saying.out.print(line, markup=False)


def _done(work: Callable[[], T]) -> T:
    """The result, or one line that says what to do next."""
    try:
        return work()
    except ClusterError as error:
        refuse(error.message)
    except (CannotStart, OSError, adopting.NotAdopted) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@cluster.command("init")
def init(
    home: Home = None,
    name: Annotated[str | None, typer.Option(help="the cluster's name (default: as [cluster] name says)")] = None,
    address: Annotated[str | None, typer.Option(help="where joining nodes find this one (default: the best)")] = None,
    json: AsJson = False,
) -> None:
    """Found a cluster with this node as its scheduler node, and print a token for the next node that joins."""
    _tell(_done(lambda: founding.init(lambda: settings(home), name, address, time.time())), json)


@cluster.command("join")
def join(
    token: Annotated[str, typer.Argument(help="what `thunderline cluster init` printed on the scheduler node")],
    home: Home = None,
    yes: Yes = False,
) -> None:
    """Make this node a member of the cluster that made the token. Its key is made here, and stays here."""

    def say(text: str) -> None:
        saying.err.print(text, markup=False)

    joined = _done(lambda: asyncio.run(joining.join(settings(home), token, yes, say)))
    after = settings(home)
    for warning in joining.warnings(joined, after):
        say(warning)
    saying.out.print(f"this node, {joined.node}, belongs to cluster {joined.cluster!r} now", markup=False)
    saying.out.print(joining.next_step(after.home), markup=False)


@cluster.command("client")
def client(
    name: Annotated[str, typer.Argument(help="of the program, or of who runs it")],
    home: Home = None,
    out: Annotated[Path | None, typer.Option(help="where it is written (default: NAME.pem)")] = None,
    json: AsJson = False,
) -> None:
    """Make a certificate for a gRPC client of the scheduler. On the scheduler node."""

    def work() -> issuing.Issued:
        found = settings(home)
        host = next(iter(founding.reached(found)), found.host)
        return issuing.client(found, name, out, host, time.time())

    _tell(_done(work), json)


@cluster.command("key")
def key(
    name: Annotated[str, typer.Argument(help="of who uses it, for the comment in config.toml")],
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Make an API key for the gateway, shown once, and its digest for config.toml."""
    _tell(_done(lambda: issuing.new_key(settings(home), name)), json)


@cluster.command("rotate")
def rotate(
    home: Home = None,
    now: Annotated[
        bool, typer.Option("--now", help="for a lost key: wait for nobody; nodes without a new certificate join again")
    ] = False,
    json: AsJson = False,
) -> None:
    """Change the cluster's authority for a new one; once more: for whom that waits. On the scheduler node."""
    found = settings(home)
    began, ring = _done(lambda: rotating.change(found, now, time.time()))
    _tell(rotating.standing(ring, began, _roster(home)), json)


def _roster(home: Path | None) -> discovery_pb2.Roster | None:
    """None when our discovery cannot be asked."""
    where, shown = target(home, "discovery"), wallet(home)

    async def work() -> discovery_pb2.Roster:
        async with asyncio.timeout(ROSTER_S), DiscoveryClient(where, shown) as discovery:
            return await discovery.roster()

    try:
        return asyncio.run(work())
    except (ClusterError, TimeoutError):
        return None


@cluster.command("leave")
def leave(
    node: Annotated[str | None, typer.Argument(help="id or host name of another one that never comes back")] = None,
    home: Home = None,
    yes: Yes = False,
) -> None:
    """Take this node out of its cluster; on the scheduler node any other."""
    found, where = settings(home), target(home, "discovery")
    own = _done(lambda: node_id(found.home))
    leaver = own
    if node:
        roster = ask(home, "discovery", DiscoveryClient, lambda discovery: discovery.roster())
        leaver = _done(lambda: leaving.named(roster, node))
    _done(lambda: leaving.check(found, own, leaver))
    if leaver == own and (why := leaving.untold(wallet(home))):
        _done(lambda: adopting.agreed(f"{why}; nobody could be told; leave all the same?", yes))
        _say_left(found, leaver, own)
        return
    _done(lambda: adopting.agreed(f"node {leaver} leaves cluster {found.cluster.name!r}?", yes))
    if leaver != own:
        _done(lambda: leaving.take_out(found, leaver))
    run(leaving.leave(where, wallet(home), leaver, leaver == own, found.limits.heartbeat_s), where)
    _say_left(found, leaver, own)


def _say_left(found: Settings, leaver: NodeId, own: NodeId) -> None:
    saying.out.print(f"node {leaver} has left cluster {found.cluster.name!r}", markup=False)
    if leaver == own:
        _done(lambda: leaving.forget(found))
        saying.out.print("stop `thunderline up` here and start it again: then this node is on its own", markup=False)
        _done(lambda: joining.leave_obeyed_store(found.home))
        if joining.obeyed_store(found.home)[1]:
            saying.out.print("with that its runner ends what the cluster's scheduler has started here", markup=False)
    else:
        saying.out.print(
            "its certificate counts until it ends, and is not renewed: if the machine is in strange hands, run "
            "`thunderline cluster rotate --now`; a token lets it in again",
            markup=False,
        )


@cluster.command("adopt")
def adopt(
    home: Home = None,
    yes: Yes = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON; without --yes it changes nothing")] = False,
) -> None:
    """After a scheduler's store was lost, restored or copied: take its runners over, with what they run."""
    where = target(home, "scheduler")
    try:
        adopting.adopt_all(where, wallet(home), settings(home).home, yes, json)
    except adopting.NotAdopted as error:
        refuse(str(error))
