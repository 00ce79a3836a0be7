"""A planner that answers the same question once."""

from dataclasses import replace

from scheduler.placing.scenes import lan, model, nodes, situation
from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.placing.values import Model, Plan, Policy, Situation, Strategy
from thunderline.scheduler.remembered import COUNT_MAX, Remembered

HERE, WHOLE = situation(nodes("ab"), lan("ab")), Policy(strategy=Strategy.WHOLE)


class Counting:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, here: Situation, of: Model, wants: Policy) -> Plan:
        self.count += 1
        return plan(here, of, wants)


def test_it_plans_once_for_what_is_equal() -> None:
    counting = Counting()
    remembered = Remembered(counting)
    # As a pass makes it anew.
    again = situation(nodes("ab"), lan("ab"))
    assert remembered(HERE, model(), WHOLE) == remembered(again, model(), WHOLE) == plan(HERE, model(), WHOLE)
    assert counting.count == 1


def test_it_plans_anew_for_what_differs_in_anything() -> None:
    counting = Counting()
    remembered = Remembered(counting)
    younger = replace(HERE, nodes=tuple(replace(one, alive_for_s=1.0) for one in HERE.nodes))
    questions = [
        (HERE, model(), WHOLE),
        (younger, model(), WHOLE),
        (situation(nodes("ab"), lan("ab", 0.6)), model(), WHOLE),
        (HERE, model(33), WHOLE),
        (HERE, model(), Policy()),
    ]
    assert [remembered(*one) for one in questions] == [plan(*one) for one in questions]
    assert counting.count == len(questions)


def test_it_forgets_the_oldest() -> None:
    counting = Counting()
    remembered = Remembered(counting)
    for tokens in range(COUNT_MAX + 1):
        remembered(HERE, model(), replace(WHOLE, kv_budget_tokens=1 + tokens))
    remembered(HERE, model(), replace(WHOLE, kv_budget_tokens=COUNT_MAX + 1))
    assert counting.count == COUNT_MAX + 1
    remembered(HERE, model(), replace(WHOLE, kv_budget_tokens=1))
    assert counting.count == COUNT_MAX + 2
