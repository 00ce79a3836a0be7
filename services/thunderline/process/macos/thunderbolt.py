"""`system_profiler SPThunderboltDataType -json`: the ports, and what each of them sees. Pure.

A bus has a `receptacle_1_tag` (the port) and `_items` (what is plugged in, each with `_items` of its own for what hangs
behind it). What is odd costs its own field and a warning that names the bus.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from thunderline.cluster.machine_facts import SeenMac, ThunderboltPort
from thunderline.process.macos.outputs import TEXT_LENGTH_MAX, Read, name, not_understood, quoted

LIST = "SPThunderboltDataType"
# See ThunderboltPort and SeenMac in cluster.proto. A Studio has 6 ports; a chain has at most 6 devices.
PORT_COUNT_MAX, MAC_COUNT_MAX, DEVICE_COUNT_MAX, BEHIND_COUNT_MAX = 16, 8, 16, 8
# Of one bus are looked at.
ITEM_COUNT_MAX = 256
# One odd bus should not crowd out what is said of the others.
WARNING_COUNT_MAX = 4
# Thunderbolt 5 has 120; what is far above is no speed.
SPEED_MAX_GBPS = 1000

# "80 Gb/s", "40", "120/40 Gb/s", "Up to 120 Gb/s"; of older systems "Up to 40 Gb/s x1".
SPEED = re.compile(r"(up to )?([0-9]{1,4})(?:/([0-9]{1,4}))?(?: ?gb/s)?(?: x1)?", re.IGNORECASE)
RECEPTACLE = re.compile(r"receptacle_[0-9]{1,3}_tag")
# Whole values: each of the two has "connected" in it.
STATUS = {"receptacle_connected": True, "receptacle_no_devices_connected": False}
# "Mac16,5", "MacBookPro18,2", "iMac21,1": what Macs call themselves to their peers.
MAC_MODEL = re.compile(r"i?Mac[A-Za-z]{0,12}[0-9]{1,3},[0-9]{1,3}")
NAMELESS = "a device without a name"


@dataclass(frozen=True, slots=True)
class Thunderbolt:
    """`model_name`: what the buses call this machine ("Mac Studio"). Ports are sorted by receptacle, then bus."""

    model_name: str = ""
    ports: tuple[ThunderboltPort, ...] = ()


@dataclass(frozen=True, slots=True)
class Speed:
    """`is_limit`: what a port could ("Up to 120 Gb/s"), not what a link has."""

    gbps: int
    is_limit: bool = False


@dataclass(slots=True)
class _Bus:
    """One entry of the list, and what is odd about it. Numbers in it are text already."""

    label: str
    entries: Mapping[str, object]
    warnings: list[str] = field(default_factory=list)

    def odd(self, what: str) -> None:
        if len(self.warnings) < WARNING_COUNT_MAX:
            self.warnings.append(not_understood(f"{self.label}: {what}"))

    def text(self, entries: Mapping[str, object], key: str) -> str | None:
        """None where there is no such key, and where it holds something else."""
        value = entries.get(key)
        if isinstance(value, str):
            return name(value)
        if key in entries:
            self.odd(f"{key} is {quoted(value)}")
        return None

    def objects(self, entries: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
        """Of a list of objects those that are some."""
        value = entries.get(key, [])
        if not isinstance(value, list):
            self.odd(f"{key} is {quoted(value)}")
            return []
        for one in value[:ITEM_COUNT_MAX]:
            if not isinstance(one, dict):
                self.odd(f"{key} holds {quoted(one)}")
        return [one for one in value[:ITEM_COUNT_MAX] if isinstance(one, dict)]


@dataclass(frozen=True, slots=True)
class _Item:
    """An entry of `_items`; `behind`: the names of what lies between, from here to there."""

    entries: Mapping[str, object]
    name: str
    behind: tuple[str, ...]


def thunderbolt(text: str) -> Read[Thunderbolt]:
    """Never raises: what is no such JSON has no ports."""
    if len(text) > TEXT_LENGTH_MAX:
        return Read(Thunderbolt(), (not_understood(f"it has {len(text)} characters"),))
    try:
        # A number is as good as its text, and no number is too long.
        tree = json.loads(text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}"), parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        return Read(Thunderbolt(), (not_understood(f"no JSON ({name(str(error))})"),))
    found = tree.get(LIST) if isinstance(tree, dict) else None
    if not isinstance(found, list):
        return Read(Thunderbolt(), (not_understood(f"it has no list {LIST}"),))
    model_name, ports, warnings = "", [], []
    for number, entries in enumerate(found[:ITEM_COUNT_MAX], 1):
        if not isinstance(entries, dict):
            warnings.append(not_understood(f"entry {number} of {LIST} is {quoted(entries)}"))
            continue
        called = entries.get("_name")
        label = name(called) if isinstance(called, str) else ""
        bus = _Bus(label or f"bus {number} of the list", entries)
        model_name = model_name or bus.text(entries, "device_name_key") or ""
        ports += _ports(bus)
        warnings += bus.warnings
    # A list that came twice has its buses twice.
    ordered = sorted(dict.fromkeys(ports), key=_place)
    if len(ordered) > PORT_COUNT_MAX:
        warnings.append(not_understood(f"it has {len(ordered)} ports; {PORT_COUNT_MAX} are kept"))
    return Read(Thunderbolt(model_name, tuple(ordered[:PORT_COUNT_MAX])), tuple(dict.fromkeys(warnings)))


def speed(text: str) -> Speed | None:
    """Of two ways the faster. None: it cannot be read."""
    found = SPEED.fullmatch(text.strip())
    if found is None:
        return None
    gbps = max(int(found[2]), int(found[3] or 0))
    return Speed(gbps, is_limit=found[1] is not None) if 0 < gbps <= SPEED_MAX_GBPS else None


def _place(port: ThunderboltPort) -> tuple[int, str, str, str]:
    """Receptacles in the order of their numbers, those without one last."""
    number = port.receptacle
    return int(number) if re.fullmatch("[0-9]{1,9}", number) else 10**9, number, port.bus, port.uuid


def _ports(bus: _Bus) -> list[ThunderboltPort]:
    """One, on every Mac with Apple silicon. Controllers of Intel's have two receptacles on a bus."""
    label, uuid = bus.text(bus.entries, "_name") or "", bus.text(bus.entries, "domain_uuid_key") or ""
    tags = sorted(key for key in bus.entries if RECEPTACLE.fullmatch(key))[:PORT_COUNT_MAX]
    ports = [_with_receptacle(ThunderboltPort(label, uuid), bus, key) for key in tags] or [ThunderboltPort(label, uuid)]
    macs, devices = _plugged_in(bus)
    used = ports if len(ports) == 1 else [one for one in ports if one.is_connected]
    if len(used) == 1:
        ports = [replace(one, macs=macs, devices=devices) if one is used[0] else one for one in ports]
    elif macs or devices:
        bus.odd(f"it has {len(ports)} receptacles, and does not say on which of them its devices are")
    if ports == [ThunderboltPort()]:
        bus.odd("it says nothing of a port")
        return []
    return ports


def _with_receptacle(whole: ThunderboltPort, bus: _Bus, key: str) -> ThunderboltPort:
    """What a tag says of its receptacle."""
    tag = bus.entries[key]
    if not isinstance(tag, dict):
        bus.odd(f"{key} is {quoted(tag)}")
        return whole
    status, told = bus.text(tag, "receptacle_status_key"), bus.text(tag, "current_speed_key")
    is_connected = None if status is None else STATUS.get(status)
    if status is not None and is_connected is None:
        bus.odd(f"receptacle_status_key is {quoted(status)}")
    read = None if told is None else speed(told)
    if told is not None and read is None:
        bus.odd(f"current_speed_key is {quoted(told)}")
    if read is not None and is_connected is False and not read.is_limit:
        # A speed of no link: neither what is negotiated nor what could be.
        bus.odd(f"nothing is connected, and current_speed_key is {quoted(told)}")
        read = None
    return replace(
        whole,
        receptacle=bus.text(tag, "receptacle_id_key") or "",
        is_connected=is_connected,
        speed_gbps=read.gbps if read and not read.is_limit else 0,
        speed_max_gbps=read.gbps if read and read.is_limit else 0,
    )


def _plugged_in(bus: _Bus) -> tuple[tuple[SeenMac, ...], tuple[str, ...]]:
    """The Macs at the other end, and the docks and disks. What came twice with the same id counts once."""
    macs: dict[str | int, SeenMac] = {}
    devices: dict[str | int, str] = {}
    for one in _items(bus):
        model = bus.text(one.entries, "device_name_key") or ""
        uuid = bus.text(one.entries, "domain_uuid_key") or ""
        if uuid or _is_mac(bus, one.entries, model):
            macs.setdefault(uuid or len(macs), SeenMac(uuid, one.name, model, one.behind))
        else:
            devices.setdefault(bus.text(one.entries, "switch_uid_key") or len(devices), one.name or model or NAMELESS)
    for what, count, limit in (("Macs", len(macs), MAC_COUNT_MAX), ("devices", len(devices), DEVICE_COUNT_MAX)):
        if count > limit:
            bus.odd(f"it sees {count} {what}; {limit} are kept")
    return tuple(macs.values())[:MAC_COUNT_MAX], tuple(devices.values())[:DEVICE_COUNT_MAX]


def _is_mac(bus: _Bus, entries: Mapping[str, object], model: str) -> bool:
    """Of an entry without the UUID of a port: only devices have a mode, only hosts offer IP."""
    if "mode_key" in entries:
        return False
    services = [one.get("_name") for one in bus.objects(entries, "services_title")]
    return "service_ip" in services or MAC_MODEL.fullmatch(model) is not None


def _items(bus: _Bus) -> Iterator[_Item]:
    """Of any depth, in their order; without recursion, for the depth is the machine's to choose."""
    waiting = [_item(bus, one) for one in reversed(bus.objects(bus.entries, "_items"))]
    for _ in range(ITEM_COUNT_MAX):
        if not waiting:
            return
        one = waiting.pop()
        yield one
        behind = (*one.behind, one.name or NAMELESS)[:BEHIND_COUNT_MAX]
        waiting += [_item(bus, inner, behind) for inner in reversed(bus.objects(one.entries, "_items"))]
    if waiting:
        bus.odd(f"it has more than {ITEM_COUNT_MAX} devices")


def _item(bus: _Bus, entries: Mapping[str, object], behind: tuple[str, ...] = ()) -> _Item:
    return _Item(entries, bus.text(entries, "_name") or "", behind)
