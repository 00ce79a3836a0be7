"""Where the next epoch of a deployment starts, on which node and with how much KV; and what it waits for otherwise."""

from collections.abc import Mapping
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.placing.scenes import LINUX, lan
from scheduler.scenes import GIB, I1, MODEL, NOW_S, WAITS, A, B, S, runner, wish
from thunderline.cluster import NodeId
from thunderline.cluster.graph import Graph, Tried
from thunderline.scheduler.actions import Action, AuditModel, FetchModel, StartEpoch
from thunderline.scheduler.known_model import even
from thunderline.scheduler.placing.memory import KV_TOKENS_MAX, KV_TOKENS_MIN, with_activations
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.placing.values import Ability, Node, Placement, Rank
from thunderline.scheduler.reconciler import Decision, reconcile
from thunderline.scheduler.starting import on_one_node, unplaced
from thunderline.scheduler.values import (
    Audit,
    DeploymentState,
    Fetch,
    Member,
    Spec,
    Standing,
    Surroundings,
    Verdict,
    Wish,
    World,
)

C = NodeId("c")
FETCHABLE = Audit(Verdict.FETCHABLE, usable_memory_bytes=64 * GIB)
UNUSABLE = Audit(Verdict.UNUSABLE, ("no config.json",), usable_memory_bytes=64 * GIB)
Audits = Mapping[NodeId, Audit]


def audit(
    usable_gib: float = 16,
    weight_gib: float = 4,
    kv_bytes: int = 65_536,
    context: int = 32_768,
    can: bool | None = None,
    digest: str = "",
) -> Audit:
    """64 KiB of KV a token: 8,192 tokens take half a GiB. Activations of 4 GiB of weights take 0.4 GiB.

    `can`: whether the engine can split it.
    """
    model = even(int(weight_gib * GIB), kv_bytes, context, 30, Ability(can))
    return Audit(Verdict.USABLE, (), model, int(usable_gib * GIB), digest, NOW_S)


def asking(kv_budget_tokens: int = 0) -> Wish:
    return replace(wish(), spec=Spec("m", MODEL, kv_budget_tokens))


def world(audits: Audits, wished: Wish, around: Surroundings | None = None) -> World:
    known = {(node, MODEL): one for node, one in audits.items()}
    return World((wished,), {node: runner(node=node) for node in audits}, known, around=around or Surroundings())


def placed(audits: Audits, reserved: Mapping[NodeId, int] | None = None, tokens: int = 0) -> Placement | None:
    found = on_one_node(plan, world(audits, asking(tokens)), asking(tokens), audits, reserved or {})
    return found.placement if found else None


def rank(audits: Audits, reserved: Mapping[NodeId, int] | None = None) -> Rank:
    found = placed(audits, reserved)
    assert found is not None
    assert len(found.ranks) == 1
    return found.ranks[0]


PLACED: dict[str, tuple[Audits, Mapping[NodeId, int], NodeId]] = {
    "the first of two alike": ({B: audit(), A: audit()}, {}, A),
    "one that is large enough": ({A: audit(4), B: audit()}, {}, B),
    "one with more free memory": ({A: audit(16), B: audit(32)}, {}, B),
    "one that is not promised to others": ({A: audit(), B: audit()}, {A: 12 * GIB}, B),
    "what others hold elsewhere does not count": ({A: audit()}, {B: 16 * GIB}, A),
    "one that holds the files before one that must fetch them": ({A: FETCHABLE, B: audit(6)}, {}, B),
    "one that can get them, where who holds them is too small": ({A: audit(4), B: FETCHABLE}, {}, B),
    "never one whose files are of no use": ({A: UNUSABLE, B: audit(6)}, {}, B),
    "the files of the first node before those of others": ({A: audit(6, digest="1"), B: audit(32, digest="2")}, {}, A),
    "other files, where those have no place": ({A: audit(4, digest="1"), B: audit(digest="2")}, {}, B),
}


@pytest.mark.parametrize(("audits", "reserved", "node"), PLACED.values(), ids=PLACED.keys())
def test_a_model_goes_to(audits: Audits, reserved: Mapping[NodeId, int], node: NodeId) -> None:
    assert rank(audits, reserved).node == node


# The weights of `audit()` with their activations, and the least KV.
FIXED, LEAST = with_activations(4 * GIB), KV_TOKENS_MIN * 65_536
BUDGETS: dict[str, tuple[int, Audit, int]] = {
    "as many tokens as fit, where only one model does": (0, audit(5), (5 * GIB - FIXED) // 65_536),
    "less than one context, where no more fits": (0, audit(5, context=131_072), (5 * GIB - FIXED) // 65_536),
    "what a second model of the size leaves": (0, audit(), (16 * GIB - FIXED - FIXED - LEAST) // 65_536),
    "eight full contexts, although more would fit": (0, audit(64, context=16_384), 131_072),
    "eight times the least, where the context is not known": (0, audit(64, context=0), 65_536),
    "never more than one engine can use": (0, audit(64, context=131_072), KV_TOKENS_MAX),
    "what the operator asked for, although a second model then has none": (140_000, audit(), 140_000),
    "what the operator asked for, although more would fit": (1_000, audit(64), 1_000),
    "the least, where the cost of a token is unknown": (0, audit(kv_bytes=0), KV_TOKENS_MIN),
    "a short context, where the cost of a token is unknown": (0, audit(kv_bytes=0, context=2_048), 2_048),
}


@pytest.mark.parametrize(("asked", "found", "tokens"), BUDGETS.values(), ids=BUDGETS.keys())
def test_the_kv_budget_is(asked: int, found: Audit, tokens: int) -> None:
    chosen = placed({A: found}, tokens=asked)
    assert chosen is not None
    assert chosen.kv_budget_tokens == tokens
    kv_bytes = 65_536 if found.model and found.model.layer_kv_bytes else 0
    assert chosen.ranks[0].needed_bytes == FIXED + tokens * kv_bytes


def test_models_of_one_size_are_placed_until_only_the_least_is_left() -> None:
    held, given_out = 0, []
    while found := placed({A: audit(32)}, {A: held}):
        held += found.ranks[0].needed_bytes
        given_out.append(found.kv_budget_tokens)
    assert given_out == [262_144, 37_683, 8_192]


def test_the_exact_least_fits_and_one_byte_less_does_not() -> None:
    exact = replace(audit(), usable_memory_bytes=FIXED + LEAST)
    assert rank({A: exact}).left_bytes == 0
    assert placed({A: replace(exact, usable_memory_bytes=FIXED + LEAST - 1)}) is None


def test_a_placement_says_why_not_the_others() -> None:
    found = placed({A: audit(2), B: UNUSABLE, C: audit(16)}, {C: 1 * GIB})
    assert found is not None
    assert found.reasons == (
        f"c: the whole model and {found.kv_budget_tokens} tokens of KV take "
        f"{found.ranks[0].needed_bytes / GIB:.2f} GiB of 15.00 GiB",
        "b: no config.json",
        "a: c before it, by more free memory",
    )


def test_the_working_set_of_metal_bounds_what_a_node_has() -> None:
    around = Surroundings((Member(Node(A, "alder"), 5 * GIB),))
    found = on_one_node(plan, world({A: audit()}, asking(), around), asking(), {A: audit()}, {})
    assert found is not None and found.placement is not None
    one = found.placement.ranks[0]
    assert one.needed_bytes + one.left_bytes == 5 * GIB
    assert found.why.startswith("alder: the whole model")


# By node: whether it is ALIVE. Then what is promised there, the state, words of the sentence, what it waits for.
STANDINGS: dict[str, tuple[Audits, Mapping[NodeId, bool], Mapping[NodeId, int], DeploymentState, str, str]] = {
    "too large for the only node": (
        {A: audit(4)},
        {A: True},
        {},
        S.IMPOSSIBLE,
        "org/m does not fit: a: needs 4.90 GiB, has 4.00 GiB free of 4.00 GiB",
        "more memory",
    ),
    "too large beside what others hold": (
        {A: audit()},
        {A: True},
        {A: 12 * GIB},
        S.WAITING,
        "org/m does not fit now: a: needs 4.90 GiB, has 4.00 GiB free of 16.00 GiB; 12.00 GiB of a are promised",
        "memory",
    ),
    "too large for who is ALIVE": (
        {A: audit(4), B: audit()},
        {A: True, B: False},
        {},
        S.WAITING,
        "b is not ALIVE",
        "nodes",
    ),
    "a node has not been asked": (
        {A: audit(4)},
        {A: True, B: True},
        {},
        S.WAITING,
        "b has not told its memory",
        "facts",
    ),
    "a node that has been asked has not told": (
        {A: audit(4), B: replace(audit(), usable_memory_bytes=0)},
        {A: True, B: True},
        {},
        S.WAITING,
        "b has not told its memory",
        "facts",
    ),
    "its files cannot be used where it would fit": (
        {A: audit(4), B: UNUSABLE},
        {A: True, B: True},
        {},
        S.IMPOSSIBLE,
        "b: no config.json",
        "more memory",
    ),
    "several could hold it, and nobody has tried to split it": (
        {A: audit(4), B: audit(4)},
        {A: True, B: True},
        {},
        S.IMPOSSIBLE,
        "b: needs 4.90 GiB, has 4.00 GiB free of 4.00 GiB; `thunderline plan org/m` shows how several could run it",
        "more memory on one node",
    ),
    "several could hold it, joined by a network": (
        {A: audit(4, can=True), B: audit(4)},
        {A: True, B: True},
        {},
        S.IMPOSSIBLE,
        "starting them is not there yet",
        "more memory on one node",
    ),
    "several could not hold it either": (
        {A: audit(1, can=True), B: audit(1)},
        {A: True, B: True},
        {},
        S.IMPOSSIBLE,
        "org/m does not fit: a: needs 4.90 GiB, has 1.00 GiB",
        "more memory",
    ),
    "nor can the engine split it": (
        {A: audit(4, can=False), B: audit(4)},
        {A: True, B: True},
        {},
        S.IMPOSSIBLE,
        "org/m does not fit: ",
        "more memory",
    ),
}


def around(alive: Mapping[NodeId, bool], graph: Graph | None = None, alive_for_s: float = 60.0) -> Surroundings:
    cards = [
        Node(node, node, is_alive=is_alive, backends=LINUX, alive_for_s=alive_for_s) for node, is_alive in alive.items()
    ]
    return Surroundings(tuple(Member(card) for card in cards), graph or Graph(links=tuple(lan(alive))))


def standing(audits: Audits, reserved: Mapping[NodeId, int], there: Surroundings) -> Standing:
    here = world(audits, asking(), there)
    found = on_one_node(plan, here, asking(), audits, reserved)
    assert found is not None and found.placement is None
    return unplaced(plan, here, asking(), audits, reserved, found)


@pytest.mark.parametrize(
    ("audits", "alive", "reserved", "state", "words", "waits_for"), STANDINGS.values(), ids=STANDINGS.keys()
)
def test_what_has_no_place_says_why(
    audits: Audits,
    alive: Mapping[NodeId, bool],
    reserved: Mapping[NodeId, int],
    state: DeploymentState,
    words: str,
    waits_for: str,
) -> None:
    found = standing(audits, reserved, around(alive))
    assert (found.state, found.waits_for) == (state, waits_for), found
    assert words in found.reason


def test_what_several_could_hold_waits_for_their_links_by_name() -> None:
    young = around({A: True, B: True}, Graph(tried=(Tried(A, B, "10.0.0.2"), Tried(B, A, "10.0.0.1"))), alive_for_s=3.0)
    found = standing({A: audit(4, can=True), B: audit(4)}, {}, young)
    assert (found.state, found.waits_for) == (S.WAITING, "links")
    assert "a → b: 10.0.0.2 has neither answered nor failed twice; b → a: 10.0.0.1 has neither" in found.reason


def test_what_fits_on_one_node_waits_for_no_link() -> None:
    here = around({A: True, B: True}, Graph(incomplete=(A, B), tried=(Tried(A, B, "10.0.0.2"),)), alive_for_s=0.0)
    assert on_one_node(plan, world({A: audit()}, asking(), here), asking(), {A: audit()}, {}).placement  # type: ignore[union-attr]


def test_what_no_single_node_takes_says_nothing_of_links_and_backends() -> None:
    """Of which one node needs none."""
    nobody_told = Surroundings((Member(Node(A, "a")),), Graph(incomplete=(A,)))
    assert standing({A: audit(4)}, {}, nobody_told).state is S.IMPOSSIBLE
    waits = standing({A: audit()}, {A: 12 * GIB}, nobody_told)
    assert waits.reason.endswith("12.00 GiB of a are promised to others")


def decided(audits: Audits, *unasked: NodeId, fetches: Mapping[NodeId, Fetch] | None = None) -> Decision:
    here = world(audits, asking())
    runners = {**here.runners, **{node: runner(node=node) for node in unasked}}
    known = {(node, MODEL): one for node, one in (fetches or {}).items()}
    return reconcile(replace(here, runners=runners, fetches=known), NOW_S, WAITS)


def actions(audits: Audits, *unasked: NodeId) -> list[Action]:
    return list(decided(audits, *unasked).actions)


def test_a_node_that_is_large_enough_gets_the_files_that_another_holds() -> None:
    recent = replace(FETCHABLE, at_s=NOW_S)
    assert actions({A: audit(4), B: recent}) == [FetchModel(B, MODEL)]
    assert actions({A: audit(4), B: recent}, C) == [AuditModel(C, MODEL)], "another one may hold them"
    refused = decided({A: audit(4), B: recent}, fetches={B: Fetch(error="no such model", permanent=True, at_s=NOW_S)})
    assert refused.actions == ()
    assert refused.standings[I1].reason == (
        "org/m does not fit: b: no such model; a: needs 4.90 GiB, has 4.00 GiB free of 4.00 GiB"
    ), "what is nowhere to be had is no way out"


def test_what_no_single_node_holds_has_one_node_asked_how_it_can_be_divided() -> None:
    def asked(at_s: float, can: bool | None = None, alone: bool = False) -> list[Action]:
        small = replace(audit(4, can=can), at_s=at_s)
        return actions({A: small} if alone else {A: small, B: small})

    long_ago, lately = NOW_S - 20, NOW_S - 1
    assert asked(long_ago) == [AuditModel(A, MODEL, splits=True), AuditModel(B, MODEL)]
    assert asked(lately) == [], "not again and again"
    assert asked(long_ago, can=True) == asked(long_ago, can=False) == [AuditModel(A, MODEL), AuditModel(B, MODEL)]
    assert asked(long_ago, alone=True) == [AuditModel(A, MODEL)], "there is nobody to share it with"


def test_of_many_nodes_a_pass_makes_no_plan_for_several() -> None:
    names = [NodeId(f"n{number}") for number in range(9)]
    audits = {node: audit(4, can=True) for node in names}
    told = standing(audits, {}, around(dict.fromkeys(names, True), Graph()))
    assert (told.state, told.waits_for) == (S.IMPOSSIBLE, "more memory on one node")


def test_an_epoch_is_started_with_the_digest_of_its_node() -> None:
    (start,) = actions({A: audit(4, digest="1"), B: audit(digest="2")})
    assert isinstance(start, StartEpoch)
    assert (start.node, start.digest) == (B, "2")


AUDITS = st.builds(
    audit,
    usable_gib=st.integers(1, 16),
    weight_gib=st.just(4),
    kv_bytes=st.sampled_from([0, 65_536, 300_000]),
    context=st.sampled_from([0, 2_048, 131_072]),
)
NODES = st.sampled_from([A, B, C])


@settings(deadline=None)
@given(
    st.dictionaries(NODES, AUDITS | st.sampled_from([FETCHABLE, UNUSABLE]), min_size=1),
    st.dictionaries(NODES, st.integers(0, 16).map(lambda gib: gib * GIB)),
    st.sampled_from([0, 0, 1_000, 300_000]),
    st.randoms(use_true_random=False),
)
def test_laws(audits: dict[NodeId, Audit], reserved: dict[NodeId, int], tokens: int, order: Random) -> None:
    shuffled = list(audits.items())
    order.shuffle(shuffled)
    found = placed(audits, reserved, tokens)
    assert placed(dict(shuffled), reserved, tokens) == found, "the order of the nodes does not matter"
    if found is not None:
        one = found.ranks[0]
        assert audits[one.node].verdict is not Verdict.UNUSABLE
        assert one.needed_bytes + reserved.get(one.node, 0) <= audits[one.node].usable_memory_bytes
        assert not tokens or found.kv_budget_tokens == tokens
    elif any(one.verdict is Verdict.USABLE for one in audits.values()):
        here = world(audits, asking(tokens))
        nowhere = on_one_node(plan, here, asking(tokens), audits, reserved)
        assert nowhere is not None
        told = unplaced(plan, here, asking(tokens), audits, reserved, nowhere)
        fits_alone = placed(audits, {}, tokens) is not None
        assert (told.state is S.IMPOSSIBLE) is not fits_alone, "impossible means: not even with nothing promised"
        assert told.reason and told.waits_for
