"""What a node's own commands tell of its hardware and its system. Pure values.

Empty text, None, 0 and UNKNOWN all mean that the system did not tell: nothing is guessed. On Linux only what is said of
MLX is known.
"""

from dataclasses import dataclass
from enum import Enum


class RdmaState(Enum):
    """Of a whole node. Numbers are those of RdmaState in cluster.proto."""

    UNKNOWN = 0  # The command hung, or printed what nobody understands.
    ENABLED = 1
    DISABLED = 2  # Enabled only in macOS Recovery.
    UNAVAILABLE = 3  # There is no such command: macOS before 26.2, or no Mac.


class RdmaPortState(Enum):
    """Of one device. Numbers are those of RdmaPortState in cluster.proto."""

    UNKNOWN = 0
    ACTIVE = 1  # A cable is in, and RDMA is enabled at both of its ends.
    DOWN = 2


@dataclass(frozen=True, slots=True)
class SeenMac:
    """A Mac that a port sees at the other end."""

    # Of the peer's own port, at which the cable ends.
    port_uuid: str = ""
    # "MacBook Pro".
    name: str = ""
    # "Mac16,5".
    model: str = ""
    # Hubs and docks between, from here to there; none: a direct cable.
    behind: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ThunderboltPort:
    """One receptacle of a node."""

    # As the system names it: "thunderboltusb4_bus_2".
    bus: str = ""
    uuid: str = ""
    # As printed on the machine: "3".
    receptacle: str = ""
    # "en4": no order of receptacles and interfaces is assumed.
    interface: str = ""
    # "rdma_en4", where there is such a device.
    rdma_device: str = ""
    rdma_port: RdmaPortState = RdmaPortState.UNKNOWN
    is_connected: bool | None = None
    # Negotiated with what is plugged in, in Gb/s: 80, 40; the faster way of 120/40.
    speed_gbps: int = 0
    # What a free port says that it could ("Up to 120 Gb/s"): of the port, of no link.
    speed_max_gbps: int = 0
    macs: tuple[SeenMac, ...] = ()
    # Docks, disks, hubs: no peers.
    devices: tuple[str, ...] = ()
    # "bridge0": the one that is up and holds its interface, so that RDMA cannot use it. "": none.
    bridge: str = ""
    # Of a Mac Studio: RDMA does not work there (studio.py).
    is_next_to_ethernet: bool = False


@dataclass(frozen=True, slots=True)
class Bridge:
    """Interfaces that the system has joined to one, as macOS does with its Thunderbolt ports."""

    # "bridge0".
    interface: str
    members: tuple[str, ...] = ()
    # Of its network service, for the remedy: "Thunderbolt Bridge".
    service: str = ""
    is_enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class ScanWarning:
    """What could not be found out. It costs its own fields and nothing else."""

    # As one would type it: "rdma_ctl status".
    command: str
    # "took longer than 5 s".
    what: str


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """All of it, from one scan or several."""

    # "Mac15,14".
    model: str = ""
    # "Mac Studio".
    model_name: str = ""
    # "Apple M3 Ultra".
    chip: str = ""
    # "26.2" and "25C56".
    os_version: str = ""
    os_build: str = ""
    rdma: RdmaState = RdmaState.UNKNOWN
    # Sorted by receptacle, then bus.
    ports: tuple[ThunderboltPort, ...] = ()
    bridges: tuple[Bridge, ...] = ()
    # By interface: what the system calls its port ("Thunderbolt 3", "Wi-Fi", "Thunderbolt Ethernet Slot 0").
    hardware_ports: tuple[tuple[str, str], ...] = ()
    # What Metal may wire: 0 is the system's default, about 75% of memory.
    wired_limit_bytes: int | None = None
    # Minutes until the machine sleeps when nobody uses it; 0 never.
    sleep_after_min: int | None = None
    # Whether it starts by itself after a power failure.
    starts_after_power_failure: bool | None = None
    is_filevault_on: bool | None = None
    # What mlx.distributed offers: "ring", "jaccl", "nccl". None: not asked yet, or no MLX.
    mlx_backends: tuple[str, ...] | None = None
    # What Metal recommends to keep at once; 0 without Metal.
    working_set_bytes: int = 0
    warnings: tuple[ScanWarning, ...] = ()

    @property
    def is_thunderbolt_5(self) -> bool | None:
        """By any port: a linked speed above 40 Gb/s, or a free port that could. None: no port tells."""
        if any(max(one.speed_gbps, one.speed_max_gbps) > TB4_GBPS for one in self.ports):
            return True
        # A linked port shows what its cable or its peer allows, a free one what it could itself.
        return False if any(one.speed_max_gbps for one in self.ports) else None


# Thunderbolt 3 and 4 link at this; Thunderbolt 5 at 80, or 120 one way.
TB4_GBPS = 40
