"""Seeds as a person writes them in [discovery] seeds. Pure."""

from thunderline.cluster.addresses import target


def seed_target(seed: str, port: int) -> str:
    """What can be dialled: of a host or an IP address, with a port or without one. `port` is for those without."""
    text = seed.strip()
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return target(host, int(rest[1:]) if rest[1:].isdigit() else port)
    if text.count(":") != 1:
        # More of them are of an IPv6 address.
        return target(text, port)
    host, _, given = text.partition(":")
    return target(host, int(given) if given.isdigit() else port)
