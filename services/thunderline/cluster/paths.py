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


# In ORDER, by a medium's number.
_PLACES = {one.value: place for place, one in enumerate(ORDER)}
# Of which nobody knows anything.
UNKNOWN = Path()


def _differ(one: End | None, other: End | None) -> bool:
    return one is not None and other is not None and one.interface != other.interface


def link_medium(path: Path, addresses: tuple[str, ...]) -> Medium:
    """The worst of the interfaces that packets pass, the way back included: its packets are in every RTT.

    `addresses`: those of both ends of the connection, "" where it is not known; one of a VPN's range decides.
    """
    for one in addresses:
        if is_address(one) and is_vpn(one):
            return Medium.VPN
    place = -1
    # Thirty a second, and more: no tuples are made for it, nor is an Enum hashed.
    for end in (path.leaves, path.arrives, path.returns, path.comes_back):
        if end is not None:
            place = max(place, _PLACES[end.medium.value])
    return ORDER[place] if place >= 0 else Medium.OTHER
