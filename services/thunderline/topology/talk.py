"""One stream of reports between two nodes: what it has carried, what is still to send, what may come. Pure."""

from dataclasses import dataclass, field
from typing import Any

from thunderline.cluster import NodeId
from thunderline.cluster.errors import InvalidRequest
from thunderline.cluster.graph import Version
from thunderline.topology import wire
from thunderline.topology.knowledge import Knowledge
from thunderline.topology.reports import Report, to_send
from thunderline.v1 import topology_pb2

# Half of what a message may have.
MESSAGE_BYTES = 8 * 1024 * 1024

Message = topology_pb2.WatchObservationsRequest | topology_pb2.WatchObservationsResponse


@dataclass
class Talk:
    """`peer` is None until it has named itself. `held`: the reports that the stream has carried, either way."""

    peer: NodeId | None = None
    held: dict[NodeId, Version] = field(default_factory=dict)
    # The peer has said something.
    stands: bool = False
    # Another stream has taken its place.
    is_over: bool = False
    # It counts no more among those that a peer has dialled.
    is_let_go: bool = False
    # The peer has lost count: of its own reports it told an older one than others have.
    is_behind: bool = False

    def to_tell(self, knowledge: Knowledge, is_first: bool) -> list[dict[str, Any]]:
        """The next messages, within their bounds; there is always a first one."""
        own, reports = knowledge.node, knowledge.reports
        wanted = to_send(reports, self.held, own, self.peer) if self.peer else (knowledge.report,)
        if self.is_behind and self.peer is not None and self.peer in reports:
            wanted, self.is_behind = (*wanted, reports[self.peer]), False
        parts: list[list[topology_pb2.NodeReport]] = [[]] if is_first else []
        size_bytes = 0
        for report in wanted:
            told = knowledge.encoded(report)
            self.held[report.node] = report.version
            size_bytes += told.ByteSize()
            if not parts or len(parts[-1]) >= wire.REPORT_COUNT_MAX or size_bytes > MESSAGE_BYTES:
                parts.append([])
                size_bytes = told.ByteSize()
            parts[-1].append(told)
        return [{"node_id": own, "reports": part} for part in parts]

    def told(self, knowledge: Knowledge, message: Message) -> list[Report]:
        """The reports in it that are news here. Raises InvalidRequest."""
        if self.peer is not None and NodeId(message.node_id) != self.peer:
            raise InvalidRequest("another node speaks", param="node_id")
        if len(message.reports) > wire.REPORT_COUNT_MAX:
            raise InvalidRequest(f"{len(message.reports)} reports in one message", param="reports")
        found = []
        for told in message.reports:
            node, version = NodeId(told.node_id), wire.version_from_proto(told.version)
            known = knowledge.reports.get(node)
            if known is None or known.version < version:
                found.append(wire.report_from_proto(told))
            elif node == self.peer and version < known.version:
                self.is_behind = True
            # As many as there are nodes that we would keep a report of.
            if known is not None or len(self.held) < wire.PEER_COUNT_MAX:
                self.held[node] = max(version, self.held.get(node, version))
        return found
