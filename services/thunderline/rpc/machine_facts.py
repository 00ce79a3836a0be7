"""What a node's commands tell of its hardware, between values and protos. Pure.

Bounds are those of cluster.proto. What another node says may be anything: it is cut and cleaned here, never refused.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, TypeVar, overload

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from thunderline.cluster.machine_facts import (
    Bridge,
    MachineFacts,
    RdmaPortState,
    RdmaState,
    ScanWarning,
    SeenMac,
    ThunderboltPort,
)
from thunderline.v1 import cluster_pb2

# A card has 64 KiB for all that it says. A Studio with docks at every port has some 5.
BYTES_MAX = 24 * 1024
# What did not fit is told by a warning of this much, which names no command.
CARD, WARNING_BYTES = "the card", 256
TEXT_LENGTH_MAX = 256
# By field: the most entries.
COUNTS_MAX = {
    "ports": 16,
    "macs": 8,
    "behind": 8,
    "devices": 16,
    "bridges": 16,
    "members": 16,
    "hardware_ports": 64,
    "mlx_backends": 8,
    "warnings": 32,
}
INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

E = TypeVar("E", bound=Enum)
T = TypeVar("T")


def to_proto(facts: MachineFacts) -> cluster_pb2.MachineFacts:
    """Within every bound. What is beyond them is left out, of too much the longest list's last entries;
    that is told by a warning."""
    told = cluster_pb2.MachineFacts(
        model=_text(facts.model),
        model_name=_text(facts.model_name),
        chip=_text(facts.chip),
        os_version=_text(facts.os_version),
        os_build=_text(facts.os_build),
        rdma=facts.rdma.value,  # type: ignore[arg-type]
        ports=[port_to_proto(one) for one in _few("ports", facts.ports)],
        bridges=[_bridge_to_proto(one) for one in _few("bridges", facts.bridges)],
        hardware_ports=[
            cluster_pb2.NamedValue(name=_text(interface), value=_text(port))
            for interface, port in _few("hardware_ports", facts.hardware_ports)
        ],
        wired_limit_bytes=_whole(facts.wired_limit_bytes),
        sleep_after_min=_whole(facts.sleep_after_min, INT32_MAX),
        starts_after_power_failure=facts.starts_after_power_failure,
        is_filevault_on=facts.is_filevault_on,
        mlx_backends=_texts("mlx_backends", facts.mlx_backends or ()),
        mlx_told=facts.mlx_backends is not None,
        working_set_bytes=_whole(facts.working_set_bytes),
        warnings=[
            cluster_pb2.ScanWarning(command=_text(one.command), what=_text(one.what))
            for one in _few("warnings", facts.warnings)
        ],
    )
    if told.ByteSize() > BYTES_MAX:
        _cut(told)
    return told


def _cut(told: cluster_pb2.MachineFacts) -> None:
    """And says so, as the last warning."""
    lists: dict[str, Any] = {name: getattr(told, name) for name in ("ports", "bridges", "hardware_ports", "warnings")}
    counts = {name: len(entries) for name, entries in lists.items()}
    while told.ByteSize() > BYTES_MAX - WARNING_BYTES:
        max(lists.values(), key=lambda one: sum(entry.ByteSize() for entry in one)).pop()
    del told.warnings[COUNTS_MAX["warnings"] - 1 :]
    left_out = [
        f"{counts[name] - len(entries)} of {counts[name]} {name.replace('_', ' ')}"
        for name, entries in lists.items()
        if len(entries) < counts[name]
    ]
    told.warnings.add(command=CARD, what=f"has room for {BYTES_MAX} bytes; left out: {', '.join(left_out)}")


def from_proto(told: cluster_pb2.MachineFacts) -> MachineFacts:
    """Raises nothing, whatever it says."""
    return MachineFacts(
        model=_text(told.model),
        model_name=_text(told.model_name),
        chip=_text(told.chip),
        os_version=_text(told.os_version),
        os_build=_text(told.os_build),
        rdma=_known(RdmaState, told.rdma),
        ports=tuple(port_from_proto(one) for one in _few("ports", told.ports)),
        bridges=tuple(_bridge_from_proto(one) for one in _few("bridges", told.bridges)),
        hardware_ports=tuple(
            (_text(one.name), _text(one.value)) for one in _few("hardware_ports", told.hardware_ports)
        ),
        wired_limit_bytes=_whole(_set(told, "wired_limit_bytes")),
        sleep_after_min=_whole(_set(told, "sleep_after_min")),
        starts_after_power_failure=_set(told, "starts_after_power_failure"),
        is_filevault_on=_set(told, "is_filevault_on"),
        mlx_backends=_texts("mlx_backends", told.mlx_backends) if told.mlx_told else None,
        working_set_bytes=_whole(told.working_set_bytes),
        warnings=tuple(ScanWarning(_text(one.command), _text(one.what)) for one in _few("warnings", told.warnings)),
    )


def port_to_proto(port: ThunderboltPort) -> cluster_pb2.ThunderboltPort:
    """Within the bounds of its fields."""
    return cluster_pb2.ThunderboltPort(
        bus=_text(port.bus),
        uuid=_text(port.uuid),
        receptacle=_text(port.receptacle),
        interface=_text(port.interface),
        rdma_device=_text(port.rdma_device),
        rdma_port=port.rdma_port.value,  # type: ignore[arg-type]
        is_connected=port.is_connected,
        speed_gbps=_whole(port.speed_gbps, INT32_MAX),
        speed_max_gbps=_whole(port.speed_max_gbps, INT32_MAX),
        macs=[
            cluster_pb2.SeenMac(
                port_uuid=_text(one.port_uuid),
                name=_text(one.name),
                model=_text(one.model),
                behind=_texts("behind", one.behind),
            )
            for one in _few("macs", port.macs)
        ],
        devices=_texts("devices", port.devices),
        bridge=_text(port.bridge),
        next_to_ethernet=port.is_next_to_ethernet,
    )


def port_from_proto(told: cluster_pb2.ThunderboltPort) -> ThunderboltPort:
    """Raises nothing, whatever it says."""
    return ThunderboltPort(
        bus=_text(told.bus),
        uuid=_text(told.uuid),
        receptacle=_text(told.receptacle),
        interface=_text(told.interface),
        rdma_device=_text(told.rdma_device),
        rdma_port=_known(RdmaPortState, told.rdma_port),
        is_connected=_set(told, "is_connected"),
        speed_gbps=_whole(told.speed_gbps),
        speed_max_gbps=_whole(told.speed_max_gbps),
        macs=tuple(
            SeenMac(_text(one.port_uuid), _text(one.name), _text(one.model), _texts("behind", one.behind))
            for one in _few("macs", told.macs)
        ),
        devices=_texts("devices", told.devices),
        bridge=_text(told.bridge),
        is_next_to_ethernet=told.next_to_ethernet,
    )


def _bridge_to_proto(bridge: Bridge) -> cluster_pb2.Bridge:
    return cluster_pb2.Bridge(
        interface=_text(bridge.interface),
        members=_texts("members", bridge.members),
        service=_text(bridge.service),
        is_enabled=bridge.is_enabled,
    )


def _bridge_from_proto(told: cluster_pb2.Bridge) -> Bridge:
    members = _texts("members", told.members)
    return Bridge(_text(told.interface), members, _text(told.service), _set(told, "is_enabled"))


def problem(told: Message) -> str:
    """What breaks a bound in such a message, or in a port alone; "" for nothing: "ports has more than 16 entries"."""
    if told.ByteSize() > BYTES_MAX:
        return f"has more than {BYTES_MAX} bytes"
    return next(_problems(told), "")


def _problems(told: Message) -> Iterator[str]:
    for field, value in told.ListFields():
        entries = value if field.is_repeated else [value]
        if field.is_repeated and len(entries) > COUNTS_MAX[field.name]:
            yield f"{field.name} has more than {COUNTS_MAX[field.name]} entries"
        for one in entries:
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                yield from _problems(one)
            elif field.type == FieldDescriptor.TYPE_STRING and one != _text(one):
                yield f"{field.name} is longer than {TEXT_LENGTH_MAX} characters, or holds what cannot be printed"
            elif field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64) and one < 0:
                yield f"{field.name} is below zero"


def _text(value: str) -> str:
    """Printed on terminals: nothing in it may do more than be read."""
    cut = value[:TEXT_LENGTH_MAX]
    return cut if cut.isprintable() else "".join(one if one.isprintable() else REPLACEMENT for one in cut)


def _texts(field: str, values: Sequence[str]) -> tuple[str, ...]:
    return tuple(_text(one) for one in _few(field, values))


def _few(field: str, values: Iterable[T]) -> list[T]:
    return list(values)[: COUNTS_MAX[field]]


@overload
def _whole(number: int, most: int = ...) -> int: ...
@overload
def _whole(number: int | None, most: int = ...) -> int | None: ...
def _whole(number: int | None, most: int = INT64_MAX) -> int | None:
    return None if number is None else min(max(number, 0), most)


def _set(told: Message, field: str) -> Any:
    """None where it is unset."""
    return getattr(told, field) if told.HasField(field) else None


def _known(kind: type[E], number: int) -> E:
    """The first of its kind for a number that only a newer version knows."""
    try:
        return kind(number)
    except ValueError:
        return kind(0)
