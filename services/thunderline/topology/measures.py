"""What topology tells Prometheus. Labels are bounded: a peer and a medium, of several links the best."""

from collections.abc import Iterable

from prometheus_client import Gauge

from thunderline.cluster.links import Link, LinkId, link_key
from thunderline.cluster.media import Medium
from thunderline.process.interfaces import Interface

INTERFACES = Gauge("thunderline_interfaces", "Network interfaces that are up, by medium.", ["medium"])
LINK_RTT = Gauge(
    "thunderline_link_rtt_seconds", "Round trip of the best link to a peer, by medium.", ["peer", "medium"]
)
LINK_STATE = Gauge(
    "thunderline_link_state", "Its state: 1 UP, 2 DEGRADED, 3 DOWN; the best one's of a medium.", ["peer", "medium"]
)
LINK_CHOSEN = Gauge("thunderline_link_chosen", "1 for the link that connections take now.", ["peer", "medium"])
_shown: set[tuple[str, str]] = set()
STREAMS = Gauge("thunderline_report_streams", "Peers with which a stream of reports stands.")


def show_interfaces(interfaces: Iterable[Interface]) -> None:
    known = list(interfaces)
    for medium in Medium:
        INTERFACES.labels(medium.name).set(sum(one.is_up and one.medium is medium for one in known))


def show_links(links: Iterable[Link], chosen: Iterable[LinkId]) -> None:
    """Of this node."""
    known = sorted(links, key=link_key)
    best: dict[tuple[str, str], Link] = {}
    for link in known:
        best.setdefault((link.to_node, link.medium.name), link)
    ids = set(chosen)
    taken = {(link.to_node, link.medium.name) for link in known if link.id in ids}
    for labels, link in best.items():
        LINK_RTT.labels(*labels).set(link.rtt_us / 1e6)
        LINK_STATE.labels(*labels).set(link.state.value)
        LINK_CHOSEN.labels(*labels).set(labels in taken)
    for labels in _shown - best.keys():
        # Who has gone is not shown for ever.
        for gauge in (LINK_RTT, LINK_STATE, LINK_CHOSEN):
            gauge.remove(*labels)
    _shown.clear()
    _shown.update(best)
