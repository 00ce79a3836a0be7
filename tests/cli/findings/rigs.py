"""Macs and cables between them, as little as findings need."""

from dataclasses import replace
from typing import Any

from thunderline.cli.findings.macs import Mac
from thunderline.cluster.machine_facts import MachineFacts, RdmaPortState, RdmaState, SeenMac, ThunderboltPort

TB5_FREE = ThunderboltPort("bus_9", "uuid-free", "9", "en9", speed_max_gbps=120, is_connected=False)
TB4_FREE = replace(TB5_FREE, speed_max_gbps=40)


def port(uuid: str, sees: str = "", number: int = 2, **more: Any) -> ThunderboltPort:
    """Receptacle 2 is en3: at 80 Gb/s to a MacBook Pro, whose port is `sees`."""
    plugged: dict[str, Any] = {}
    if sees:
        plugged = {
            "is_connected": True,
            "speed_gbps": 80,
            "macs": (SeenMac(sees, "MacBook Pro", "Mac16,5"),),
            "rdma_port": RdmaPortState.ACTIVE,
        }
    interface = f"en{number + 1}"
    known = {"receptacle": str(number), "interface": interface, "rdma_device": f"rdma_{interface}"}
    return ThunderboltPort(**{"bus": f"bus_{number}", "uuid": uuid, **known, **plugged, **more})


# A mini at rest: nothing is wrong with it, and nothing is plugged in.
FACTS = MachineFacts(
    model="Mac16,11",
    model_name="Mac mini",
    chip="Apple M4 Pro",
    os_version="26.2",
    os_build="25C61",
    rdma=RdmaState.ENABLED,
    ports=(TB5_FREE,),
    hardware_ports=(("en0", "Ethernet"), ("en3", "Thunderbolt 2"), ("en9", "Thunderbolt 9"), ("en4", "Thunderbolt 3")),
    wired_limit_bytes=0,
    sleep_after_min=0,
    starts_after_power_failure=True,
    is_filevault_on=False,
    mlx_backends=("ring", "jaccl"),
    working_set_bytes=48 * 2**30,
)
ADDRESSES = {"en3": ["169.254.7.1", "fe80::1"], "en4": ["169.254.7.2"]}


def mac(name: str = "ada", *ports: ThunderboltPort, **more: Any) -> Mac:
    """`more`: of its facts. Its node_id is "node-NAME"."""
    free = more.pop("free", TB5_FREE)
    addresses = more.pop("addresses", ADDRESSES)
    facts = replace(FACTS, ports=(*ports, free), **more)
    return Mac(f"node-{name}", name, facts, addresses, 64 * 2**30)


def pair(ada: dict[str, Any] | None = None, bob: dict[str, Any] | None = None, **of_port: Any) -> tuple[Mac, Mac]:
    """Two Macs with a cable from receptacle 2 to receptacle 2. `of_port`: of both ends."""
    return (
        mac("ada", port("uuid-a", "uuid-b", **of_port), **(ada or {})),
        mac("bob", port("uuid-b", "uuid-a", **of_port), **(bob or {})),
    )
