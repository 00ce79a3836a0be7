"""Buses as `system_profiler` prints them, made of what a case is about."""

import json
from typing import Any

from thunderline.cluster.machine_facts import SeenMac, ThunderboltPort
from thunderline.process.macos.thunderbolt import LIST, thunderbolt

BUS = "thunderboltusb4_bus_"
UUID, OTHER_UUID, THIRD_UUID = (f"0D0D0000-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))
SERVICES = [{"_name": "service_ip"}, {"_name": "unknown_xd_service"}]


def bus(*items: Any, **more: Any) -> dict[str, Any]:
    """A bus whose port has receptacle 2, at 80 Gb/s."""
    tag = {
        "current_speed_key": "80 Gb/s",
        "receptacle_id_key": "2",
        "receptacle_status_key": "receptacle_connected",
        **more.pop("tag", {}),
    }
    plain = {"_name": f"{BUS}1", "domain_uuid_key": UUID, "receptacle_1_tag": tag}
    return {**plain, **({"_items": list(items)} if items else {}), **more}


def mac(uuid: str = OTHER_UUID, **more: Any) -> dict[str, Any]:
    return {
        "_name": "MacBook Pro",
        "device_name_key": "Mac16,5",
        **({"domain_uuid_key": uuid} if uuid else {}),
        "services_title": SERVICES,
        **more,
    }


def dock(name: str, *items: Any, **more: Any) -> dict[str, Any]:
    return {"_name": name, "device_name_key": name, "mode_key": "usb_four", "_items": list(items), **more}


def read(*buses: Any) -> tuple[tuple[ThunderboltPort, ...], tuple[str, ...]]:
    """The ports, and the warnings."""
    found = thunderbolt(json.dumps({LIST: buses}))
    return found.value.ports, found.warnings


def seen(*behind: str, uuid: str = OTHER_UUID) -> SeenMac:
    """What becomes of `mac`."""
    return SeenMac(uuid, "MacBook Pro", "Mac16,5", behind)
