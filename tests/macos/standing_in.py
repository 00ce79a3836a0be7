"""Lays out a folder of stand-in commands: put first in PATH, it makes this machine look like the Mac of a recording.

python tests/macos/standing_in.py FOLDER RECORDING [RECORDING ...]
"""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

STAND_IN = Path(__file__).with_name("stand_in")
# What thunderline runs on a Mac.
COMMANDS = (
    "fdesetup",
    "ibv_devices",
    "ibv_devinfo",
    "ifconfig",
    "networksetup",
    "pmset",
    "rdma_ctl",
    "route",
    "sw_vers",
    "sysctl",
    "system_profiler",
)
# And itself, to see what MLX can do: stood in for only where that was recorded.
OURS = "thunderline"
MISSING = ".missing"
# How long each command takes, in seconds; by default no time.
DELAY = "delay"


@dataclass(frozen=True)
class StandIns:
    """A folder of links, one a command. `recorded` in it is what they print, `calls` which command lines were run."""

    folder: Path
    # What is searched after it.
    path: str = field(default_factory=lambda: os.environ["PATH"])

    def show(self, *recordings: Path) -> None:
        """From now on, all at once. What a later recording holds of a command line stands for what an earlier does.

        Raises ValueError for a command that is missing there, and that this machine would answer itself.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        files = chosen(recordings)
        missing = {command for command in COMMANDS if any(_is_of(one, command) for one in files)}
        if own := sorted(command for command in missing if shutil.which(command, path=self.path)):
            raise ValueError(f"{', '.join(own)}: recorded as missing, and this machine has a command of that name")
        ours = [OURS] if any(one.name.startswith(f"{OURS}_") for one in files) else []
        for command in (*COMMANDS, OURS):
            link = self.folder / command
            if command in missing or command not in (*COMMANDS, *ours):
                link.unlink(missing_ok=True)
            elif not link.is_symlink():
                link.symlink_to(STAND_IN)
        # All at once: by a link that is replaced.
        number = sum(1 for one in self.folder.glob("recorded.*"))
        laid = self.folder / f"recorded.{number}"
        laid.mkdir()
        for one in files:
            shutil.copyfile(one, laid / one.name)
        new = self.folder / "new"
        new.symlink_to(laid.name)
        new.replace(self.folder / "recorded")

    def take_s(self, seconds: float) -> None:
        """Each command, from now on."""
        (self.folder / "recorded" / DELAY).write_text(f"{seconds:g}\n")

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def forget(self) -> None:
        """The calls until now."""
        (self.folder / "calls").unlink(missing_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.folder}:{self.path}", "THUNDERLINE_NODE_PLATFORM": "darwin"}


def chosen(recordings: Sequence[Path]) -> list[Path]:
    """Of each command line the files of the last recording that has any."""
    found: dict[str, list[Path]] = {}
    for recording in recordings:
        here: dict[str, list[Path]] = {}
        for path in sorted(recording.iterdir()):
            if path.is_file():
                here.setdefault(path.name if path.name == DELAY else path.stem, []).append(path)
        found |= here
    return [path for paths in found.values() for path in paths]


def _is_of(file: Path, command: str) -> bool:
    """Whether the file says that the command is missing: "rdma_ctl_status.missing"."""
    return file.suffix == MISSING and (file.stem == command or file.stem.startswith(f"{command}_"))


def main(argv: Sequence[str]) -> int:
    if len(argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder, *recordings = (Path(one).absolute() for one in argv)
    made = StandIns(folder)
    made.show(*recordings)
    print(f'PATH="{folder}:$PATH" THUNDERLINE_NODE_PLATFORM=darwin thunderline ROLE')
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
