"""`thunderline cluster ...`: who belongs to this cluster, and whom its runners obey."""

from typing import Annotated

import typer

from thunderline.cli import adopting
from thunderline.cli.asking import Home, refuse, settings, target

cluster = typer.Typer(no_args_is_help=True, help="Who belongs to this cluster, and whom its runners obey.")


@cluster.command("adopt")
def cluster_adopt(
    home: Home = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON; without --yes it changes nothing")] = False,
) -> None:
    """After a scheduler's store was lost, restored or copied: take its runners over, with what they run."""
    where = target(home, "scheduler")
    try:
        adopting.adopt_all(where, settings(home).home, yes, json)
    except adopting.NotAdopted as error:
        refuse(str(error))
