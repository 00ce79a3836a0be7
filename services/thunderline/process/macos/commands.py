"""Which commands a machine is asked with, how long each may take, and which are due now. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from thunderline.process.macos import outputs, system
from thunderline.process.macos.networks import bridge_services
from thunderline.process.macos.outputs import Output, Read, took_longer
from thunderline.process.settings import DARWIN

# They answer within a second, a few milliseconds most of them; one that takes longer than this hangs.
ANSWER_S = 5.0
# Nothing tells of what changes beside the interfaces: RDMA after a restart, a cable that links at another speed.
PERIOD_S = 60.0
# Set by hand, once or twice in a machine's life; and a system is another one after a restart.
SELDOM_S = 600.0
# An interface that comes and goes again and again has the machine asked no more often than this.
CHANGE_GAP_S = 5.0
# A busy machine makes a command late, once or twice: what it said last holds for so many of its periods.
HOLDS_PERIODS = 3
# What is plugged in comes up at once, and has its speed and its address some seconds later.
SETTLED_S = 10.0


@dataclass(frozen=True, slots=True)
class Command:
    """Times are counted from the beginning of a run."""

    words: tuple[str, ...]
    timeout_s: float = ANSWER_S
    every_s: float = PERIOD_S
    # Due when the interfaces have changed, too.
    follows_interfaces: bool = False
    # One answer is enough, when this understands all of it.
    once: Callable[[str], Read[object]] | None = None
    # Takes seconds of the processor: nothing waits for its answer, and everything else goes first.
    is_heavy: bool = False

    @property
    def line(self) -> str:
        """As one types it."""
        return " ".join(self.words)


class RunState(Enum):
    """How the last run of a command stands."""

    UNDER_WAY = 1  # It has been started, and not all of it is gone.
    ANSWERED = 2
    FAILED = 3  # It is missing, or ended without an answer; or it is asked until it is understood, and was not.
    HUNG = 4  # It was ended when its time was over.


@dataclass(frozen=True, slots=True)
class Run:
    begun_s: float
    state: RunState = RunState.UNDER_WAY


# Imports of mlx on a cold disk took 20 s.
MLX = Command(tuple(outputs.MLX.split()), timeout_s=20.0, every_s=SELDOM_S, once=system.mlx, is_heavy=True)
SERVICE_ORDER = Command(tuple(outputs.SERVICE_ORDER.split()), follows_interfaces=True)
MAC: tuple[Command, ...] = (
    # It asks every controller in turn.
    Command(tuple(outputs.THUNDERBOLT.split()), timeout_s=10.0, follows_interfaces=True),
    Command(tuple(outputs.HARDWARE_PORTS.split()), follows_interfaces=True),
    SERVICE_ORDER,
    Command(tuple(outputs.IFCONFIG.split()), follows_interfaces=True),
    Command(tuple(outputs.RDMA_STATUS.split())),
    Command(tuple(outputs.RDMA_DEVICES.split()), follows_interfaces=True),
    Command(tuple(outputs.RDMA_PORTS.split()), follows_interfaces=True),
    Command(tuple(outputs.SYSTEM_VERSION.split()), every_s=SELDOM_S),
    Command(tuple(outputs.HARDWARE.split())),
    Command(tuple(outputs.POWER.split()), every_s=SELDOM_S),
    Command(tuple(outputs.FILEVAULT.split()), every_s=SELDOM_S),
    MLX,
)


def commands(platform: str, known: Mapping[str, Output]) -> tuple[Command, ...]:
    """All that a machine is asked with. `known`: what they have printed, by line; whether a bridge's service is enabled
    can be asked when the services are known. Elsewhere than on a Mac only what MLX can do there."""
    if platform != DARWIN:
        return (MLX,)
    services = bridge_services(known[SERVICE_ORDER.line].text) if SERVICE_ORDER.line in known else ()
    enabled = [Command((*outputs.SERVICE_ENABLED.split(), one), follows_interfaces=True) for one in services]
    return (*MAC, *enabled)


def due(
    asked: Sequence[Command], runs: Mapping[str, Run], changed_s: float | None, now_s: float
) -> tuple[Command, ...]:
    """What is to be started now, in the order of `asked`.

    `runs`: the last one of each, by line. `changed_s`: when the interfaces have changed for the last time, None for
    never. Wanted some times a second.
    """
    return tuple(one for one in asked if _is_due(one, runs.get(one.line), changed_s, now_s))


def _is_due(command: Command, last: Run | None, changed_s: float | None, now_s: float) -> bool:
    if last is None:
        return True
    if last.state is RunState.UNDER_WAY or (command.once and last.state is RunState.ANSWERED):
        return False
    age_s = now_s - last.begun_s
    if age_s >= command.every_s:
        return True
    # What hangs may leave something behind in the kernel each time.
    if not command.follows_interfaces or last.state is RunState.HUNG or age_s < CHANGE_GAP_S or changed_s is None:
        return False
    return last.begun_s < changed_s or last.begun_s < changed_s + SETTLED_S <= now_s


def holds(command: Command, answered_s: float, now_s: float) -> bool:
    """Whether what a command has answered last still counts when it hangs or fails now."""
    return now_s - answered_s < HOLDS_PERIODS * command.every_s


def state(command: Command, output: Output, *, is_hung: bool) -> RunState:
    """Of a run that is over."""
    if is_hung:
        return RunState.HUNG
    is_nonsense = command.once is not None and bool(command.once(output.text).warnings)
    return RunState.FAILED if output.problem or is_nonsense else RunState.ANSWERED


def lost(command: Command, answered_s: float, last: Run | None, now_s: float) -> str:
    """Why what a command has answered last counts no more, though nobody reports anything: "took longer than 5 s". ""
    while it counts, and where its last run was fine. `last` may hang in the kernel for ever."""
    if last is None or last.state is RunState.ANSWERED or holds(command, answered_s, now_s):
        return ""
    if last.state is RunState.UNDER_WAY and now_s - last.begun_s <= command.timeout_s:
        return ""
    return took_longer(command.timeout_s)
