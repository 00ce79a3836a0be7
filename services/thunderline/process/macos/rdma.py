"""`rdma_ctl status`, `ibv_devices`, `ibv_devinfo`: RDMA over Thunderbolt. Pure.

What they print: Apple's technote TN3205.
"""

import re
from collections.abc import Mapping

from thunderline.cluster.machine_facts import RdmaPortState, RdmaState
from thunderline.process.macos.outputs import Read, lines, not_understood, quoted

# A Studio has 6.
DEVICE_COUNT_MAX = 16

# "rdma_en4": longer by "rdma_" than the name of an interface.
DEVICE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,31}")
GUID = re.compile(r"(?:0x)?[0-9a-fA-F:]{16,23}")
RULE = re.compile(r"-+")
# Printed in place of a list, to stderr as a rule.
NO_DEVICES = "No IB devices found"
# On lines of their own, or (a capture of `ibv_devinfo -v` is so) several on one. "phys_state:" is neither. Devices are
# parted by an empty line.
DEVICE_OR_STATE = re.compile(r"\bhca_id:[ \t]*(\S{0,64})|\bstate:[ \t]*(\S{0,64})|\n\s*\n")
PORT_STATES = {"PORT_ACTIVE": RdmaPortState.ACTIVE, "PORT_DOWN": RdmaPortState.DOWN}


def status(text: str) -> Read[RdmaState]:
    """ "enabled", "disabled" or a sentence with one of them."""
    words = set(re.findall(r"[a-z]+", " ".join(lines(text)).lower()))
    # A sentence that says "disabled" may tell how it gets enabled.
    if "disabled" in words:
        return Read(RdmaState.DISABLED)
    if "enabled" in words and "not" not in words:
        return Read(RdmaState.ENABLED)
    return Read(RdmaState.UNKNOWN, (not_understood(quoted(text)),))


def devices(text: str) -> Read[tuple[str, ...]]:
    """Of `ibv_devices`: below two lines of heading a device and its GUID on each; no order is assumed."""
    found, warnings = [], []
    for line in lines(text.replace(NO_DEVICES, "")):
        match line.split():
            case []:
                pass
            case [first, *_] if first == "device" or RULE.fullmatch(first):
                pass
            case [device, guid] if DEVICE.fullmatch(device) and GUID.fullmatch(guid):
                found.append(device)
            case _:
                warnings.append(not_understood(quoted(line)))
    return Read(tuple(dict.fromkeys(found))[:DEVICE_COUNT_MAX], tuple(dict.fromkeys(warnings)))


def port_states(text: str) -> Read[Mapping[str, RdmaPortState]]:
    """Of `ibv_devinfo`, by device: each has one port."""
    found: dict[str, RdmaPortState] = {}
    warnings = []
    device = ""
    for match in DEVICE_OR_STATE.finditer("\n".join(lines(text))):
        if match[1] is not None:
            device = match[1] if DEVICE.fullmatch(match[1]) else ""
            if device:
                found.setdefault(device, RdmaPortState.UNKNOWN)
            else:
                warnings.append(not_understood(f"hca_id is {quoted(match[1])}"))
        elif match[2] is not None:
            state = PORT_STATES.get(match[2], RdmaPortState.UNKNOWN)
            if state is RdmaPortState.UNKNOWN:
                warnings.append(not_understood(f"{device or 'a device without a name'}: state is {quoted(match[2])}"))
            if device:
                found[device] = state
        else:
            # What follows is of the next, whose name may be missing.
            device = ""
    if not found and not warnings and text.strip() not in ("", NO_DEVICES):
        warnings.append(not_understood(quoted(text)))
    return Read(dict(list(found.items())[:DEVICE_COUNT_MAX]), tuple(dict.fromkeys(warnings)))
