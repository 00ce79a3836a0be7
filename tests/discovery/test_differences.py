"""Versions and settings in which the members differ."""

import itertools

from discovery.little_cards import card
from thunderline.cluster.members import MemberState
from thunderline.discovery.differences import Kind, differences, digest, sentence
from thunderline.discovery.values import Card, Member

S = MemberState


def members(*cards: Card, state: MemberState = S.ALIVE) -> list[Member]:
    return [Member(one, state, 0.0) for one in cards]


ADA = card("ada", versions=[("mlx", "0.32.4"), ("thunderline", "0.2")], settings=[("node.bind", "10.0.0.1")])
BOB = card("bob", versions=[("mlx", "0.32.4"), ("thunderline", "0.2")], settings=[("node.bind", "10.0.0.2")])
CLEO = card("cleo", versions=[("mlx", "0.32.2"), ("thunderline", "0.2")], settings=[("node.bind", "10.0.0.2")])


def test_a_difference_names_the_values_and_their_nodes_most_first() -> None:
    found = {one.name: one for one in differences(members(ADA, BOB, CLEO))}
    assert found.keys() == {"mlx", "node.bind"}
    assert (found["mlx"].kind, found["mlx"].expected) == (Kind.VERSION, False)
    assert found["mlx"].values == (("0.32.4", ("ada", "bob")), ("0.32.2", ("cleo",)))


def test_it_is_told_by_host_name() -> None:
    cards = {one.node_id: one for one in (ADA, BOB, CLEO)}
    (mlx, _) = differences(members(ADA, BOB, CLEO))
    assert sentence(mlx, cards) == "mlx is 0.32.4 on ada.local and bob.local, 0.32.2 on cleo.local"


def test_addresses_to_bind_differ_by_nature() -> None:
    (bind,) = differences(members(ADA, BOB))
    assert (bind.name, bind.kind, bind.expected) == ("node.bind", Kind.SETTING, True)


def test_who_does_not_say_a_value_differs_from_who_does() -> None:
    old = card("old", versions=[("thunderline", "0.2")], settings=[("node.bind", "10.0.0.1")])
    (mlx,) = differences(members(ADA, old))
    assert mlx.values == (("", ("old",)), ("0.32.4", ("ada",)))
    assert sentence(mlx, {}) == "mlx is not said on old, 0.32.4 on ada"


def test_a_version_and_a_setting_of_one_name_are_two_things() -> None:
    one = card("one", versions=[("name", "1")], settings=[("name", "2")])
    two = card("two", versions=[("name", "1")], settings=[("name", "3")])
    assert [found.kind for found in differences(members(one, two))] == [Kind.SETTING]


def test_those_who_are_gone_do_not_count() -> None:
    assert differences([*members(ADA), *members(CLEO, state=S.DEAD)]) == ()
    assert differences([*members(ADA), *members(CLEO, state=S.LEFT)]) == ()
    assert differences([*members(ADA), *members(CLEO, state=S.SUSPECT)]) != ()


def test_the_order_of_the_members_does_not_matter() -> None:
    assert len({differences(members(*order)) for order in itertools.permutations((ADA, BOB, CLEO))}) == 1


def test_a_digest_is_of_the_settings_and_not_of_their_order() -> None:
    settings = [("cluster.name", "ours"), ("discovery.port", "7401")]
    assert digest(settings) == digest(reversed(settings))
    assert digest(settings) != digest([("cluster.name", "ours"), ("discovery.port", "7402")])
    assert digest([("a", "b,c")]) != digest([("a", "b"), ("c", "")])
