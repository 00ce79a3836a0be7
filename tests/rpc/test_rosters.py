"""What follows from a roster: for whom a rotation waits."""

import pytest

from thunderline.rpc.rosters import holders
from thunderline.v1 import cluster_pb2, discovery_pb2

ALIVE = discovery_pb2.MEMBER_STATE_ALIVE
DEAD, LEFT = discovery_pb2.MEMBER_STATE_DEAD, discovery_pb2.MEMBER_STATE_LEFT

# The state of a member, and whom the scheduler node's card names as taken out -> whether a rotation waits for it.
WAITS: dict[str, tuple["discovery_pb2.MemberState.ValueType", list[str], bool]] = {
    "one that is there": (ALIVE, [], True),
    "one that is off": (DEAD, ["other"], True),
    "one that has left": (LEFT, [], False),
    "one that was taken out": (DEAD, ["member"], False),
    "one that was taken out and is still heard": (ALIVE, ["member", "other"], False),
}


@pytest.mark.parametrize(("state", "departed", "waits"), WAITS.values(), ids=WAITS.keys())
def test_a_rotation_waits_for(state: "discovery_pb2.MemberState.ValueType", departed: list[str], waits: bool) -> None:
    own = cluster_pb2.NodeCard(node_id="scheduler", departed_node_ids=departed)
    # Of others' cards that says nothing.
    member = cluster_pb2.NodeCard(node_id="member", departed_node_ids=["scheduler", "member"])
    roster = discovery_pb2.Roster(
        members=[discovery_pb2.Member(card=own, state=ALIVE), discovery_pb2.Member(card=member, state=state)],
        node_id="scheduler",
    )
    assert [one.node for one in holders(roster)] == ["scheduler", *(["member"] if waits else [])]
