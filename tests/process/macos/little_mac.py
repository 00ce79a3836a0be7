"""Stand-ins for a Mac's commands, each a shell script that a test writes; nothing else of a Mac is in their PATH."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from thunderline.process.macos.commands import Command, commands
from thunderline.process.macos.outputs import Output
from thunderline.process.settings import Settings, read

# Where the shell's own commands are; `sysctl` and `ifconfig` of Linux are elsewhere.
SHELL = "/usr/bin:/bin"
# One that hangs is waited for no longer; the busiest machine starts a shell in less.
HANGS_AFTER_S = 2.0

# What all have printed in these tests, but for what a test changes.
ANSWERS = {
    "networksetup -listallhardwareports": "\nHardware Port: Thunderbolt 1\nDevice: en2\n\nHardware Port: Ethernet\n"
    "Device: en0\n\nVLAN Configurations\n===================\n",
    "networksetup -listnetworkserviceorder": "An asterisk (*) denotes that a network service is disabled.\n"
    "(1) Little Bridge\n(Hardware Port: Thunderbolt Bridge, Device: bridge0)\n\n",
    "networksetup -getnetworkserviceenabled Little Bridge": "Enabled\n",
    "ifconfig": "bridge0: flags=8863<UP,BROADCAST,RUNNING> mtu 1500\n\tmember: en2 flags=3<LEARNING,DISCOVER>\n",
    "system_profiler SPThunderboltDataType -json": '{"SPThunderboltDataType": []}\n',
    "rdma_ctl status": "disabled\n",
    "ibv_devices": "    device          \t   node GUID\n    ------          \t----------------\n",
    "ibv_devinfo": "hca_id:\trdma_en2\n",
    "sw_vers": "ProductName:\t\tmacOS\nProductVersion:\t\t26.2\nBuildVersion:\t\t25C56\n",
    "sysctl hw.model machdep.cpu.brand_string hw.memsize iogpu.wired_limit_mb": "hw.model: Mac15,14\n"
    "machdep.cpu.brand_string: Apple M3 Ultra\nhw.memsize: 103079215104\niogpu.wired_limit_mb: 0\n",
    "pmset -g": "System-wide power settings:\n sleep                0\n autorestart          1\n",
    "fdesetup status": "FileVault is Off.\n",
    "thunderline rank --probe": '{"device": "gpu", "backends": ["ring", "jaccl"]}\n',
}


@dataclass(frozen=True)
class LittleMac:
    """`folder` is first in PATH."""

    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        return {"PATH": f"{self.folder}:{SHELL}", "LANG": "de_DE.UTF-8"}

    def settings(self, platform: str = "darwin") -> Settings:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return read({"THUNDERLINE_NODE_PLATFORM": platform}, home=home)

    def does(self, name: str, script: str) -> None:
        """A command that is there from now on; all at once, for those who look meanwhile."""
        new = self.folder / f".{name}"
        new.write_text(f'#!/bin/sh\necho "{name} $*" >>{shlex.quote(str(self._calls))}\n{script}\n')
        new.chmod(0o755)
        new.rename(self.folder / name)

    def prints(self, answers: Mapping[str, str] = ANSWERS) -> None:
        """By command line. One that is not among them fails."""
        names = {line.split(" ", 1)[0] for line in answers}
        for line, text in answers.items():
            self._answer(line).write_text(text)
        for name in names:
            folder = shlex.quote(str(self.folder))
            self.does(name, f'exec cat "{folder}/answer of {name}${{*:+ $*}}"')

    def _answer(self, line: str) -> Path:
        return self.folder / f"answer of {line}"

    @property
    def _calls(self) -> Path:
        return self.folder / "calls"

    def calls(self, line: str) -> int:
        """How often it was run."""
        told = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [one.strip() for one in told].count(line)

    def pids(self) -> list[int]:
        """Of the processes that scripts have written down: see `remembering`."""
        path = self.folder / "pids"
        return [int(one) for one in path.read_text().split()] if path.exists() else []

    def remembering(self, script: str) -> str:
        """A script that may `echo $$ >>$PIDS`."""
        return f"PIDS={shlex.quote(str(self.folder / 'pids'))}\n{script}"

    def living(self) -> list[int]:
        """Of `pids`, those that can still do something."""
        return [one for one in self.pids() if is_living(one)]


def is_living(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def quick(platform: str, known: Mapping[str, Output]) -> tuple[Command, ...]:
    """The real commands, with less patience."""
    return tuple(replace(one, timeout_s=HANGS_AFTER_S) for one in commands(platform, known))


def restless(platform: str, known: Mapping[str, Output]) -> tuple[Command, ...]:
    """They ask again and again."""
    return tuple(replace(one, every_s=0.2, once=None) for one in quick(platform, known))
