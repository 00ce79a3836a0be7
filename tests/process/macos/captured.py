"""Three Macs that never were, recorded in the shapes of real ones: tests/macos/captures."""

import re
from pathlib import Path

from thunderline.process.macos import outputs
from thunderline.process.macos.networks import bridge_services
from thunderline.process.macos.outputs import MISSING, Output

CAPTURES = Path(__file__).parents[2] / "macos/captures"
# An M3 Ultra Studio on a ring without a bridge, an M4 Max laptop as it comes out of its box, a mini with Thunderbolt 4.
STUDIO, LAPTOP, MINI = "studio", "laptop", "mini"
MACHINES = (STUDIO, LAPTOP, MINI)
COMMANDS = (
    outputs.THUNDERBOLT,
    outputs.HARDWARE_PORTS,
    outputs.SERVICE_ORDER,
    outputs.IFCONFIG,
    outputs.RDMA_STATUS,
    outputs.RDMA_DEVICES,
    outputs.RDMA_PORTS,
    outputs.SYSTEM_VERSION,
    outputs.HARDWARE,
    outputs.POWER,
    outputs.FILEVAULT,
    outputs.MLX,
)


def path(machine: str, command: str) -> Path:
    """As tests/macos/recording.py names it."""
    return CAPTURES / machine / (re.sub(r"[^A-Za-z0-9.-]", "_", command) + ".txt")


def text(machine: str, command: str) -> str:
    return path(machine, command).read_text()


def output(machine: str, command: str) -> Output:
    file = path(machine, command)
    if file.with_suffix(".missing").exists():
        return Output(problem=MISSING)
    return Output(file.read_text())


def whole(machine: str) -> dict[str, Output]:
    """What a scan of it brings."""
    found = {command: output(machine, command) for command in COMMANDS}
    for service in bridge_services(found[outputs.SERVICE_ORDER].text):
        command = f"{outputs.SERVICE_ENABLED} {service}"
        found[command] = output(machine, command)
    return found
