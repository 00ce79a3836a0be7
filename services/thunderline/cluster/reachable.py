"""At which IP addresses others reach the roles of a node, as its bind allows. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from thunderline.cluster.addresses import address_key, is_address, is_private, is_probed, parse
from thunderline.cluster.media import ORDER, Medium

# Of a card. Whoever looks for a node dials all of them at once.
ADDRESS_COUNT_MAX = 32
ALL_IPV4, ALL = "0.0.0.0", "::"


@dataclass(frozen=True, slots=True)
class Face:
    """What counts of an interface here."""

    medium: Medium
    addresses: Sequence[str]
    is_up: bool = True


def addresses(bind: str, faces: Iterable[Face]) -> tuple[str, ...]:
    """Those of the best media first, so that what is cut off are the least of them.

    Of a wildcard all, without loopback; of one address that one alone; of a name nothing: who knows what it means
    elsewhere.
    """
    if bind not in (ALL_IPV4, ALL):
        own = "127.0.0.1" if bind == "localhost" else bind.strip("[]")
        return (own,) if is_address(own) else ()
    found: dict[str, tuple[int, bool, tuple[int, int, str]]] = {}
    for face in faces:
        for address in face.addresses if face.is_up else ():
            fits = is_probed(address, same_machine=False) and (bind == ALL or parse(address).version == 4)
            if fits:
                found.setdefault(address, (ORDER.index(face.medium), not is_private(address), address_key(address)))
    return tuple(sorted(found, key=lambda address: found[address]))[:ADDRESS_COUNT_MAX]
