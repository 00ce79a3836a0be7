"""Asks a Mac about itself again and again, and keeps what it has answered last.

Which command is due is decided in commands.py, what the answers mean in assembling.py. On other systems only MLX is
asked.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from thunderline.cluster.machine_facts import MachineFacts, ScanWarning
from thunderline.process.changes import Changes
from thunderline.process.macos.assembling import WARNING_COUNT_MAX, assemble
from thunderline.process.macos.commands import Command, Run, RunState, commands, due, holds, lost, state
from thunderline.process.macos.outputs import MISSING, STILL_COUNTS, Output
from thunderline.process.macos.running import Ran, ran
from thunderline.process.settings import Settings

LOOK_S = 0.5
# Starting a process holds the loop for some milliseconds: not all of them in a row.
START_GAP_S = 0.05
OURS = "thunderline"
NICE = ("nice", "-n", "10")

# By the platform and what is known by now.
Asked = Callable[[str, Mapping[str, Output]], tuple[Command, ...]]
# A command's words, the time it has, and its environment: see running.py.
Runner = Callable[[Sequence[str], float, Mapping[str, str] | None], Awaitable[Ran]]


class Scanner:
    """Belongs to one event loop. `changes` is notified when `facts` are others; None until every command that is not
    heavy has been run once, whatever came of it. `asked`: see commands.py."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str] | None = None,
        asked: Asked = commands,
        runner: Runner = ran,
    ) -> None:
        self.changes = Changes()
        self.facts: MachineFacts | None = None
        self._settings = settings
        self._environ = environ
        self._asked = asked
        self._ran = runner
        self._outputs: dict[str, Output] = {}
        self._commands = asked(settings.platform, self._outputs)
        self._runs: dict[str, Run] = {}
        # When each command has answered last, and why it does not now where its last answer still holds.
        self._answered_s: dict[str, float] = {}
        self._late: dict[str, str] = {}
        self._is_dirty = False
        # What the interfaces look like: as told last, and as noticed last.
        self._told: object = None
        self._noticed: object = None
        self._changed_s: float | None = None

    def saw(self, interfaces: object) -> None:
        """Any value that is another one when the interfaces, their state or their addresses are. From any thread."""
        self._told = interfaces

    async def run(self) -> None:
        """Until cancelled; where there is nothing to run it is over at once."""
        clock = asyncio.get_running_loop().time
        async with asyncio.TaskGroup() as tasks:
            while self._commands:
                self._notice(clock())
                for command in due(self._commands, self._runs, self._changed_s, clock()):
                    self._runs[command.line] = Run(clock())
                    tasks.create_task(self._ask(command), name=command.line)
                    await asyncio.sleep(START_GAP_S)
                self._let_go(clock())
                await self._renew()
                await asyncio.sleep(LOOK_S)

    def _notice(self, now_s: float) -> None:
        told = self._told
        if told != self._noticed:
            if self._noticed is not None:
                self._changed_s = now_s
            self._noticed = told

    async def _ask(self, command: Command) -> None:
        found = await self._ran(words(command, self._settings, self._environ), command.timeout_s, self._environ)
        self._keep(command, found.output, asyncio.get_running_loop().time())
        # It is not started beside itself, not even beside what could not be killed.
        await asyncio.wait({found.gone})
        if (run := self._runs.get(command.line)) is not None:
            self._runs[command.line] = replace(run, state=state(command, found.output, is_hung=found.is_hung))

    def _keep(self, command: Command, output: Output, now_s: float) -> None:
        line, before = command.line, (self._outputs.get(command.line), self._late.pop(command.line, ""))
        if not output.problem:
            self._answered_s[line] = now_s
        elif line in self._answered_s and output.problem != MISSING and holds(command, self._answered_s[line], now_s):
            self._late[line], output = output.problem, self._outputs[line]
        if before != (output, self._late.get(line, "")):
            self._take(line, output)

    def _let_go(self, now_s: float) -> None:
        """Of what answers no more, and may never report, nor be asked, again."""
        for command in self._commands:
            line = command.line
            if line not in self._answered_s or self._outputs[line].problem:
                continue
            if why := lost(command, self._answered_s[line], self._runs.get(line), now_s):
                self._take(line, Output(problem=self._late.pop(line, why)))

    def _take(self, line: str, output: Output) -> None:
        self._is_dirty = True
        self._outputs[line] = output
        self._commands = self._asked(self._settings.platform, self._outputs)
        lines = {one.line for one in self._commands}
        by_line: tuple[dict[str, Any], ...] = (self._outputs, self._answered_s, self._late)
        for kept in by_line:
            for gone in kept.keys() - lines:
                del kept[gone]
        running = RunState.UNDER_WAY
        self._runs = {line: run for line, run in self._runs.items() if line in lines or run.state is running}

    async def _renew(self) -> None:
        is_whole = all(one.is_heavy or one.line in self._outputs for one in self._commands)
        if not (self._is_dirty and is_whole):
            return
        self._is_dirty = False
        late = [ScanWarning(line, problem + STILL_COUNTS) for line, problem in sorted(self._late.items())]
        # Some milliseconds, of a Mac with many docks.
        facts = await asyncio.to_thread(assemble, dict(self._outputs))
        # Odd lines of what did answer are cut first.
        facts = replace(facts, warnings=(*late, *facts.warnings)[:WARNING_COUNT_MAX])
        if facts != self.facts:
            self.facts = facts
            self.changes.notify()


async def scan_once(
    settings: Settings, environ: Mapping[str, str] | None = None, asked: Asked = commands
) -> MachineFacts:
    """Every command once, side by side, and then those that follow from their answers: no longer than half a minute,
    whatever they do. On other systems than a Mac only what MLX can do is known."""
    known: dict[str, Output] = {}
    while left := [one for one in asked(settings.platform, known) if one.line not in known]:
        found = await asyncio.gather(*(ran(words(one, settings, environ), one.timeout_s, environ) for one in left))
        known |= {one.line: of_one.output for one, of_one in zip(left, found, strict=True)}
    return await asyncio.to_thread(assemble, known)


def words(command: Command, settings: Settings, environ: Mapping[str, str] | None = None) -> Sequence[str]:
    """What is really run. Our own program is the one beside this interpreter, whatever PATH has; only where the
    platform is forced one in PATH may stand in for it."""
    if command.words[0] != OURS:
        return command.words
    path = (os.environ if environ is None else environ).get("PATH")
    stand_in = shutil.which(OURS, path=path) if settings.node.platform else None
    return *NICE, stand_in or str(Path(sys.executable).parent / OURS), *command.words[1:]
