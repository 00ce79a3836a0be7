"""Which interfaces the packets of a connection really pass, and the medium that follows. Pure."""

from dataclasses import dataclass

from thunderline.cluster.addresses import is_address, is_vpn
from thunderline.cluster.media import ORDER, Medium


@dataclass(frozen=True, slots=True)
class End:
    """An interface of one node."""

    interface: str
    medium: Medium


@dataclass(frozen=True, slots=True)
class Path:
    """There and back, of one unbound connection as MLX dials it. None: nobody can tell.

    An address says only who owns it: a cable's subnet may be routed over another interface.
    """

    leaves: End | None = None  # The dialling node, by its route look-up for the peer's address.
    arrives: End | None = None  # At the peer: the accepted connection.
    returns: End | None = None  # The peer again: its route look-up for the dialling address.
    comes_back: End | None = None  # At the dialling node: what the peer's own probes arrive on.

    @property
    def ends(self) -> tuple[End, ...]:
        return tuple(one for one in (self.leaves, self.arrives, self.returns, self.comes_back) if one is not None)

    @property
    def is_asymmetric(self) -> bool:
        """Whether there and back take different interfaces, as far as both are known."""
        return _differ(self.leaves, self.comes_back) or _differ(self.arrives, self.returns)


# Of which nobody knows anything.
UNKNOWN = Path()


def _differ(one: End | None, other: End | None) -> bool:
    return one is not None and other is not None and one.interface != other.interface


def worst(media: tuple[Medium, ...]) -> Medium:
    """OTHER of none: nothing is known."""
    return max(media, key=ORDER.index, default=Medium.OTHER)


def link_medium(path: Path, addresses: tuple[str, ...]) -> Medium:
    """The worst of the interfaces that packets pass, the way back included: its packets are in every RTT.

    `addresses`: those of both ends of the connection, "" where it is not known; one of a VPN's range decides.
    """
    found = worst(tuple(end.medium for end in path.ends))
    return worst((found, Medium.VPN)) if any(is_address(one) and is_vpn(one) for one in addresses) else found
