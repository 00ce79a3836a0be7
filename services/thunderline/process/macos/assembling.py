"""What a machine's commands have printed becomes its facts. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from thunderline.cluster.machine_facts import (
    Bridge,
    MachineFacts,
    RdmaPortState,
    RdmaState,
    ScanWarning,
    ThunderboltPort,
)
from thunderline.cluster.media import receptacle_of
from thunderline.cluster.studio import is_next_to_ethernet
from thunderline.process.macos import networks, outputs, rdma, system, thunderbolt
from thunderline.process.macos.outputs import MISSING, Output, Read, name

T = TypeVar("T")

# See MachineFacts in cluster.proto. What one command prints should not crowd out what is said of the others.
WARNING_COUNT_MAX, WARNING_COUNT_OF_COMMAND_MAX = 32, 6
RDMA_LISTS = {outputs.RDMA_DEVICES, outputs.RDMA_PORTS}


@dataclass(slots=True)
class _Outputs:
    """Reads them, and collects what there is to warn of."""

    by_command: Mapping[str, Output]
    warnings: list[ScanWarning] = field(default_factory=list)

    def read(self, command: str, reader: Callable[[str], Read[T]]) -> T | None:
        """None where the command has not been run yet, or has printed nothing."""
        output = self.by_command.get(command)
        if output is None:
            return None
        if output.problem:
            if not self._is_known(command, output.problem):
                self.warn(command, output.problem)
            return None
        found = reader(output.text)
        for what in found.warnings[:WARNING_COUNT_OF_COMMAND_MAX]:
            self.warn(command, what)
        return found.value

    def warn(self, command: str, what: str) -> None:
        self.warnings.append(ScanWarning(name(command), name(what, outputs.WARNING_LENGTH_MAX)))

    def _is_known(self, command: str, problem: str) -> bool:
        """A system without RDMA has none of its commands, which RdmaState.UNAVAILABLE says; one may have no devices."""
        if command in RDMA_LISTS and rdma.NO_DEVICES in problem:
            return True
        tells = self.by_command.get(outputs.RDMA_STATUS)
        is_without = tells is not None and tells.problem == MISSING
        return is_without and problem == MISSING and command in {outputs.RDMA_STATUS, *RDMA_LISTS}


def assemble(by_command: Mapping[str, Output]) -> MachineFacts:
    """Keys are command lines (outputs.py). What is not among them has not been asked yet, and costs no warning.

    Never raises for what a command may print.
    """
    told = _Outputs(by_command)
    seen = told.read(outputs.THUNDERBOLT, thunderbolt.thunderbolt) or thunderbolt.Thunderbolt()
    hardware_ports = told.read(outputs.HARDWARE_PORTS, networks.hardware_ports) or ()
    interfaces = told.read(outputs.IFCONFIG, networks.interfaces)
    bridges = _bridges(told, interfaces)
    state = told.read(outputs.RDMA_STATUS, rdma.status) or RdmaState.UNKNOWN
    if by_command.get(outputs.RDMA_STATUS, Output()).problem == MISSING:
        state = RdmaState.UNAVAILABLE
    ports = _with_rdma(told, _with_interfaces(told, seen.ports, hardware_ports))
    version = told.read(outputs.SYSTEM_VERSION, system.version) or system.Version()
    hardware = told.read(outputs.HARDWARE, system.hardware) or system.Hardware()
    power = told.read(outputs.POWER, system.power) or system.Power()
    mlx = told.read(outputs.MLX, system.mlx) or system.Mlx()
    is_filevault_on = told.read(outputs.FILEVAULT, system.filevault)
    return MachineFacts(
        model=hardware.model,
        model_name=seen.model_name,
        chip=hardware.chip,
        os_version=version.version,
        os_build=version.build,
        rdma=state,
        ports=tuple(_with_obstacles(ports, interfaces or (), hardware.model, seen.model_name)),
        bridges=bridges,
        hardware_ports=hardware_ports,
        wired_limit_bytes=hardware.wired_limit_bytes,
        sleep_after_min=power.sleep_after_min,
        starts_after_power_failure=power.starts_after_power_failure,
        is_filevault_on=is_filevault_on,
        mlx_backends=mlx.backends,
        working_set_bytes=mlx.working_set_bytes,
        warnings=tuple(dict.fromkeys(told.warnings))[:WARNING_COUNT_MAX],
    )


def _with_interfaces(
    told: _Outputs, ports: Sequence[ThunderboltPort], hardware_ports: Sequence[tuple[str, str]]
) -> list[ThunderboltPort]:
    """By the number of the receptacle; a number that stands for two of something stands for none."""
    if not hardware_ports:
        return list(ports)
    interfaces: dict[str, list[str]] = {}
    for interface, title in hardware_ports:
        if receptacle := receptacle_of(title):
            interfaces.setdefault(receptacle, []).append(interface)
    receptacles = [one.receptacle for one in ports]
    found = []
    for one in ports:
        named = interfaces.get(one.receptacle, [])
        what = f"receptacle {one.receptacle} ({one.bus or one.uuid or 'of a bus without a name'})"
        if one.receptacle and receptacles.count(one.receptacle) > 1:
            told.warn(outputs.THUNDERBOLT, f"names {what} more than once")
        elif one.receptacle and not named:
            told.warn(outputs.HARDWARE_PORTS, f'names no "Thunderbolt {one.receptacle}" for {what}')
        elif len(named) > 1:
            told.warn(outputs.HARDWARE_PORTS, f"gives {what} the interfaces {', '.join(named)}")
        else:
            one = replace(one, interface=named[0]) if named else one
        found.append(one)
    return found


def _with_rdma(told: _Outputs, ports: Sequence[ThunderboltPort]) -> tuple[ThunderboltPort, ...]:
    """An interface's device is called after it."""
    states = told.read(outputs.RDMA_PORTS, rdma.port_states) or {}
    listed = told.read(outputs.RDMA_DEVICES, rdma.devices)
    # Where the list did not come, those whose states came are there too.
    devices = set(states if listed is None else listed)
    found = []
    for one in ports:
        device = f"rdma_{one.interface}"
        if one.interface and device in devices:
            one = replace(one, rdma_device=device, rdma_port=states.get(device, RdmaPortState.UNKNOWN))
        found.append(one)
    return tuple(found)


def _with_obstacles(
    ports: Iterable[ThunderboltPort], interfaces: Iterable[networks.Interface], model: str, model_name: str
) -> Iterator[ThunderboltPort]:
    """What rules out RDMA at a port, whatever its device says. A bridge that is down holds nothing."""
    up = sorted((one for one in interfaces if one.is_up and outputs.BRIDGE.fullmatch(one.name)), key=_number)
    held: dict[str, str] = {}
    for bridge in up:
        for member in bridge.members:
            held.setdefault(member, bridge.name)
    for one in ports:
        is_next = is_next_to_ethernet(model, model_name, one.interface, one.receptacle)
        yield replace(one, bridge=held.get(one.interface, ""), is_next_to_ethernet=is_next)


def _number(one: networks.Interface) -> tuple[int, str]:
    """bridge2 before bridge10."""
    return len(one.name), one.name


def _bridges(told: _Outputs, interfaces: Sequence[networks.Interface] | None) -> tuple[Bridge, ...]:
    """Those that `ifconfig` shows; where it did not come, those that have a service."""
    services = told.read(outputs.SERVICE_ORDER, networks.services) or ()
    if interfaces is None:
        names = dict.fromkeys(one.device for one in services)
        interfaces = tuple(networks.Interface(one, is_up=True) for one in names)
    found = sorted((one for one in interfaces if outputs.BRIDGE.fullmatch(one.name)), key=_number)
    return tuple(_bridge(told, one, services) for one in found[: networks.BRIDGE_COUNT_MAX])


def _bridge(told: _Outputs, interface: networks.Interface, services: Sequence[networks.Service]) -> Bridge:
    """Several services may have the same device: one that is enabled makes the bridge so, if it is not taken down."""
    own = [one for one in services if one.device == interface.name]
    enabled = []
    for one in own:
        asked = told.read(f"{outputs.SERVICE_ENABLED} {one.name}", networks.service_enabled)
        enabled.append(one.is_enabled if asked is None else asked)
    chosen = own[enabled.index(True)] if True in enabled else next(iter(own), None)
    return Bridge(
        interface=interface.name,
        members=interface.members,
        service="" if chosen is None else name(chosen.name),
        is_enabled=False if not interface.is_up else any(enabled) if own else None,
    )
