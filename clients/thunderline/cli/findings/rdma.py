"""Whether RDMA could be used on a Mac, and what to do for it. Pure.

Apple's technote TN3205: RDMA over Thunderbolt needs Thunderbolt 5 and macOS 26.2, and is enabled in macOS Recovery.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto

from thunderline.cli.findings.finding import Finding, joined, note, warning
from thunderline.cli.findings.macs import Mac, other_end, place, rdma_line
from thunderline.cluster.machine_facts import TB4_GBPS, RdmaPortState, RdmaState, ThunderboltPort
from thunderline.process.macos import outputs

FIRST_VERSION = (26, 2)
# Of the wheel of mlx_metal that has JACCL; that of macosx_15_0_arm64 has none.
JACCL_TAG = "macosx_26_0_arm64"
VERSION = re.compile(r"([0-9]{1,4})(?:\.([0-9]{1,4}))?(?:\.[0-9]{1,4}){0,2}")


class Step(Enum):
    """What to do about RDMA on one Mac."""

    NOTHING_IT_IS_ON = auto()
    ENABLE = auto()  # In macOS Recovery.
    UPDATE = auto()  # macOS, and then look again.
    NOTHING_IT_CANNOT = auto()  # Thunderbolt 4 has no RDMA.
    FIND_COMMAND = auto()  # macOS is new enough, and `rdma_ctl` is not found.
    FIND_OUT = auto()  # What is unknown; until then there is no advice.


class Unknown(Enum):
    """What an advice would need. The value ends the sentence "unsure: "."""

    PORTS = "whether a port is Thunderbolt 5"
    STATE = "whether RDMA is enabled"
    VERSION = "whether macOS is 26.2 or newer"


@dataclass(frozen=True, slots=True)
class Advice:
    step: Step
    unknown: tuple[Unknown, ...] = ()


def version(text: str) -> tuple[int, int] | None:
    """Of macOS, compared by numbers: 26.10 is newer than 26.2. None: it cannot be read."""
    found = VERSION.fullmatch(text.strip())
    return (int(found[1]), int(found[2] or 0)) if found else None


def advice(is_thunderbolt_5: bool | None, rdma: RdmaState, os_version: str) -> Advice:
    """Total. What is unknown leads to no advice, unless another fact decides alone."""
    if is_thunderbolt_5 is False:
        return Advice(Step.NOTHING_IT_CANNOT)
    ports = (Unknown.PORTS,) if is_thunderbolt_5 is None else ()
    if rdma is RdmaState.ENABLED:
        return Advice(Step.NOTHING_IT_IS_ON, ports)
    runs = version(os_version)
    if not ports and runs is not None and runs < FIRST_VERSION:
        return Advice(Step.UPDATE)
    state = (Unknown.STATE,) if rdma is RdmaState.UNKNOWN else ()
    missing = (*ports, *state, *((Unknown.VERSION,) if runs is None else ()))
    if missing:
        return Advice(Step.FIND_OUT, missing)
    return Advice(Step.ENABLE if rdma is RdmaState.DISABLED else Step.FIND_COMMAND)


REMEDIES = {
    Step.ENABLE: "in macOS Recovery (started with the power button held) open Terminal: `rdma_ctl enable`, then reboot",
    Step.UPDATE: (
        "update macOS first: System Settings > General > Software Update, or `softwareupdate --list`; then "
        "`thunderline doctor` says what comes next"
    ),
    Step.FIND_COMMAND: (
        "`which rdma_ctl` in a terminal; when it is there, start thunderline anew with its folder in PATH, and run "
        "`thunderline doctor` again"
    ),
    Step.FIND_OUT: "`thunderline doctor` there says what is not known, and `rdma_ctl status` whether RDMA is enabled",
}


def of_mac(mac: Mac) -> Advice:
    facts = mac.facts
    return advice(facts.is_thunderbolt_5, facts.rdma, facts.os_version)


def of_rdma(mac: Mac) -> list[Finding]:
    """It matters where another Mac is plugged in; elsewhere it is only noted."""
    told, facts = of_mac(mac), mac.facts
    runs = f"ProductVersion {facts.os_version}" if facts.os_version else "no ProductVersion"
    seen = f"{rdma_line(mac)}; `{outputs.SYSTEM_VERSION}`: {runs}; {speed_line(mac)}"
    unknown = joined([one.value for one in told.unknown])
    others = joined(sorted({f"{other_end(one)} at {place(one)}" for one in mac.cabled}))
    match told.step:
        case Step.NOTHING_IT_IS_ON:
            active = [one.rdma_device for one in facts.ports if one.rdma_port is RdmaPortState.ACTIVE]
            found = [note("RDMA is enabled", f"active: {joined(active) or 'no port'}", seen, unknown)]
            return found + _without_jaccl(mac)
        case Step.NOTHING_IT_CANNOT:
            why = "its ports are Thunderbolt 4 or older, and RDMA needs Thunderbolt 5; the ring over TCP works"
            return [note("there is no RDMA on this hardware, and nothing to do", why, seen)]
        case Step.FIND_OUT:
            return [note("RDMA", "no advice: too little is known of it", seen, unknown)]
        case _ if not others:
            why = "that matters once another Mac is plugged in: `thunderline doctor` then says what to do"
            return [note(_what(told.step, mac), why, seen)]
        case step:
            why = f"{others} is reached by TCP only: the ring works, and RDMA would be faster"
            unsure = Unknown.STATE.value if step is Step.FIND_COMMAND else ""
            return [warning(_what(step, mac), why, REMEDIES[step], seen, unsure)]


def _what(step: Step, mac: Mac) -> str:
    return {
        Step.ENABLE: "RDMA is disabled",
        Step.UPDATE: f"macOS {mac.facts.os_version} is too old for RDMA, which needs 26.2",
    }.get(step, "RDMA cannot be looked at: `rdma_ctl` is not found")


def speed_line(mac: Mac) -> str:
    """The ports that decide whether it is Thunderbolt 5."""
    ports = [one for one in mac.facts.ports if max(one.speed_gbps, one.speed_max_gbps) > TB4_GBPS] or mac.facts.ports
    shown = joined(sorted({speed_of(one) for one in ports}))
    return f"`{outputs.THUNDERBOLT}`: {shown or 'no port'}"


def speed_of(port: ThunderboltPort) -> str:
    """As the system says it."""
    if port.speed_gbps:
        return f"{port.speed_gbps} Gb/s"
    return f"Up to {port.speed_max_gbps} Gb/s" if port.speed_max_gbps else "no speed"


def _without_jaccl(mac: Mac) -> list[Finding]:
    backends = mac.facts.mlx_backends
    if backends is None or "jaccl" in backends or mac.facts.is_thunderbolt_5 is not True:
        return []
    return [
        warning(
            "MLX is built without JACCL",
            "RDMA is enabled here, and this MLX cannot use it: ranks talk over TCP",
            "install thunderline anew, with the same version of mlx, by a Python made for macOS 26 or newer, whose "
            f"`python -m pip debug --verbose` lists {JACCL_TAG}; `{outputs.MLX}` then names jaccl",
            f"`{outputs.MLX}`: backends {joined(backends) or 'none'}",
            "whether its Python was made for an older macOS: such a one takes the wheel without JACCL",
        )
    ]
