"""`thunderline doctor`: looks at this node, asks its roles, and says what is wrong and what mends it.

It looks in looking.py, and what follows from what it sees is decided in findings/. Nothing is changed.
"""

import asyncio
import json as jsonlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from thunderline.cli import saying
from thunderline.cli.asking import Home
from thunderline.cli.findings import finding
from thunderline.cli.findings.finding import Finding
from thunderline.cli.looking import Look
from thunderline.process import settings as settings_module
from thunderline.process.entry import DONE, FAILED
from thunderline.process.settings import SettingsError

# Longer lines are hard to read, however wide the terminal.
WIDTH_MAX = 120


@dataclass(frozen=True, slots=True)
class Diagnosis:
    home: str
    node_id: str
    findings: tuple[Finding, ...]

    @property
    def is_working(self) -> bool:
        return finding.is_working(self.findings)

    def as_tree(self) -> dict[str, Any]:
        found = [finding.as_tree(one) for one in finding.in_order(self.findings)]
        return {"ok": self.is_working, "home": self.home, "node_id": self.node_id, "findings": found}


def register(app: typer.Typer) -> None:
    @app.command()
    def doctor(
        home: Home = None,
        everybody: Annotated[
            bool, typer.Option("--all", help="every node of the cluster, by what its card tells")
        ] = False,
        json: Annotated[bool, typer.Option("--json", help="print JSON: ok, home, node_id, findings")] = False,
    ) -> None:
        """What is wrong with this node and its links, and what mends it. Exits with 1 when something cannot work so."""
        try:
            found = asyncio.run(diagnosed(home, everybody))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        if json:
            print(jsonlib.dumps(found.as_tree(), indent=2, ensure_ascii=False))
        else:
            width = min(saying.out.width, WIDTH_MAX) if saying.out.is_terminal else saying.PIPE_WIDTH
            for line in finding.told(found.findings, width):
                saying.out.print(line, markup=False)
        raise typer.Exit(DONE if found.is_working else FAILED)


async def diagnosed(home: Path | None, everybody: bool = False) -> Diagnosis:
    """`everybody`: the other nodes of the roster too."""
    try:
        settings = settings_module.read(home=home)
    except SettingsError as error:
        where = str((home or settings_module.default_home(os.environ)).absolute())
        remedy = "mend that line or variable, or take it out: `thunderline discovery --help` shows how settings look"
        return Diagnosis(where, "", (finding.wrong("the settings cannot be read", str(error), remedy),))
    look = Look(settings, everybody)
    async with look.telling():
        await look.run()
    return Diagnosis(str(settings.home), look.node_id, tuple(look.findings))
