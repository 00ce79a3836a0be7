"""Two or three nodes, their interfaces, and links between them."""

from thunderline.cluster import NodeId
from thunderline.cluster.links import Link, LinkState
from thunderline.cluster.machine_facts import SeenMac, ThunderboltPort
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End, Path

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")

NAMES = {
    Medium.LOOPBACK: "lo",
    Medium.THUNDERBOLT: "en5",
    Medium.ETHERNET: "en0",
    Medium.WIFI: "en1",
    Medium.OTHER: "veth0",
    Medium.VPN: "utun3",
}
# Of node B, and of node A.
ADDRESSES = {
    Medium.LOOPBACK: ("127.0.0.2", "127.0.0.1"),
    Medium.THUNDERBOLT: ("192.168.4.2", "192.168.4.1"),
    Medium.ETHERNET: ("192.168.1.2", "192.168.1.1"),
    Medium.WIFI: ("192.168.2.2", "192.168.2.1"),
    Medium.OTHER: ("10.9.0.2", "10.9.0.1"),
    Medium.VPN: ("100.64.0.2", "100.64.0.1"),
}


def end(medium: Medium) -> End:
    return End(NAMES[medium], medium)


def straight(medium: Medium) -> Path:
    """There and back by the same interfaces of this medium."""
    return Path(end(medium), end(medium), end(medium), end(medium))


def link(
    medium: Medium,
    rtt_ms: float,
    state: LinkState = LinkState.UP,
    address: str = "",
    local_interface: str = "",
) -> Link:
    """From A to B."""
    leaves = End(local_interface or NAMES[medium], medium)
    return Link(
        A,
        B,
        address or ADDRESSES[medium][0],
        medium,
        state,
        int(rtt_ms * 1000),
        Path(leaves, end(medium), end(medium), leaves),
        ADDRESSES[medium][1],
    )


def port(
    uuid: str,
    interface: str,
    *sees: str,
    receptacle: str = "",
    speed_gbps: int = 80,
    behind: tuple[str, ...] = (),
    devices: tuple[str, ...] = (),
) -> ThunderboltPort:
    """`sees`: UUIDs of the ports at the other end. Of a name like "a4" the 4 is the receptacle."""
    return ThunderboltPort(
        uuid=uuid,
        receptacle=receptacle or uuid[1:],
        interface=interface,
        rdma_device=f"rdma_{interface}" if interface else "",
        is_connected=bool(sees or devices),
        speed_gbps=speed_gbps if sees else 0,
        macs=tuple(SeenMac(one, "Mac Studio", "Mac15,14", behind) for one in sees),
        devices=devices,
    )
