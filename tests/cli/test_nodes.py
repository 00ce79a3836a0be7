"""`nodes`: what is said of the members, their differences, and others."""

from datetime import UTC, datetime

from thunderline.cli import nodes
from thunderline.v1 import cluster_pb2, discovery_pb2

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def member(hostname: str, node_id: str, **fields: object) -> discovery_pb2.Member:
    card = cluster_pb2.NodeCard(
        node_id=node_id,
        hostname=hostname,
        cluster_name="ours",
        memory_bytes=64 * 2**30,
        chip="M4",
        version="0.2.0",
        operating_system="darwin 25",
        addresses=["192.168.4.1", "10.0.0.1"],
        versions=[
            cluster_pb2.NamedValue(name="system", value="macOS 26.1 25B78"),
            cluster_pb2.NamedValue(name="thunderline", value="0.2.0+0557149aabbc"),
            cluster_pb2.NamedValue(name="mlx", value="0.32.4"),
        ],
    )
    found = discovery_pb2.Member(card=card, state=discovery_pb2.MEMBER_STATE_ALIVE, **fields)  # type: ignore[arg-type]
    found.state_since.FromDatetime(datetime(2026, 11, 22, 11, 59, 58, tzinfo=UTC))
    return found


def test_a_row_marks_the_node_that_answers_and_says_where_it_was_heard() -> None:
    row = dict(zip(nodes.COLUMNS, nodes.row(member("ada", "a", address="10.0.0.7"), "a", NOW), strict=True))
    assert row == {
        "node": "ada (this node)",
        "state": "ALIVE",
        "since": "11:59:58",
        "address": "10.0.0.7",
        "memory": "64 GiB",
        "chip": "M4",
        "system": "macOS 26.1 25B78",
        "thunderline": "0.2.0+0557149aabbc",
        "mlx": "0.32.4",
        "id": "a",
    }


def test_one_that_was_not_heard_has_its_first_address_and_one_without_versions_what_it_says() -> None:
    old = member("bob", "b")
    del old.card.versions[:]
    row = dict(zip(nodes.COLUMNS, nodes.row(old, "a", NOW), strict=True))
    assert (row["node"], row["address"]) == ("bob", "192.168.4.1")
    assert (row["system"], row["thunderline"], row["mlx"]) == ("darwin 25", "0.2.0", "not said")


def test_a_mac_is_told_with_its_model() -> None:
    mac = member("bob", "b")
    mac.card.machine.model = "Mac15,14"
    row = dict(zip(nodes.COLUMNS, nodes.row(mac, "a", NOW), strict=True))
    assert row["chip"] == "M4 (Mac15,14)"


def test_what_is_odd_is_told_in_lines_and_what_is_expected_is_not() -> None:
    ada = member("ada", "a")
    roster = discovery_pb2.Roster(
        members=[ada, member("bob", "b", problem="10.0.0.2:7401: refused")],
        node_id="a",
        differences=[
            discovery_pb2.Difference(name="mlx", sentence="mlx is 0.32.4 on ada, 0.32.2 on bob"),
            discovery_pb2.Difference(name="node.bind", sentence="node.bind is ...", expected=True),
        ],
        twins=[discovery_pb2.Twin(node_id="a", shown=ada.card, other=member("copy", "a").card)],
        strangers=[discovery_pb2.Stranger(node_id="e", cluster_name="theirs", addresses=["10.0.0.9:7401"])],
    )
    assert nodes.lines(roster) == [
        "this node has just started, or slept: others may be missing for some seconds",
        "bob cannot be called: 10.0.0.2:7401: refused",
        "they differ: mlx is 0.32.4 on ada, 0.32.2 on bob",
        "two nodes have the id a: ada at 192.168.4.1, 10.0.0.1 and copy at 192.168.4.1, 10.0.0.1; on the copy remove "
        "node.json from its home and start it again",
        "e at 10.0.0.9:7401 is of another cluster, 'theirs'; this one is 'ours'",
    ]
    assert nodes.lines(discovery_pb2.Roster(members=[ada], node_id="a", complete=True)) == []
