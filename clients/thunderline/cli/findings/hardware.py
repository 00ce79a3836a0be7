"""What is said of a Mac, and of several: all findings on hardware in one place. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from thunderline.cli.findings import cables, power, rdma
from thunderline.cli.findings.cables import Cable
from thunderline.cli.findings.finding import Finding
from thunderline.cli.findings.macs import Mac, of_warnings
from thunderline.cli.findings.ports import of_ports


def of_mac(mac: Mac, found: Sequence[Cable], wanted_bytes: int | None = None, config: str = "") -> list[Finding]:
    """Of one. `found`: all cables; `wanted_bytes`: [runner] memory_bytes, None for another node's."""
    return [
        *rdma.of_rdma(mac),
        *of_ports(mac),
        *cables.of_down_ports(mac, found),
        *power.of_power(mac),
        *power.of_wired_limit(mac, wanted_bytes, config),
        *of_warnings(mac.facts.warnings),
    ]


def of_others(macs: Sequence[Mac], found: Sequence[Cable]) -> list[Finding]:
    """Of each by its card, with its name."""
    return [replace(finding, node=mac.name) for mac in macs for finding in of_mac(mac, found)]


def between(macs: Sequence[Mac], found: Sequence[Cable], about: str | None = None) -> list[Finding]:
    """Of the cables between Macs. `about`: only what concerns that node."""
    return [*cables.of_cables(found, about), *cables.of_builds(macs, found, about)]
