"""Plans that were made lately: passes come often, and what they ask changes little."""

from collections import deque

from thunderline.scheduler.placing.plan import plan
from thunderline.scheduler.placing.values import Model, Plan, Policy, Situation
from thunderline.scheduler.situation import Planner

# Two for each deployment that has no place, as many as there may be.
COUNT_MAX = 200


class Remembered:
    """A planner that answers the same question once."""

    def __init__(self, planner: Planner = plan) -> None:
        self._planner = planner
        self._answers: deque[tuple[tuple[Situation, Model, Policy], Plan]] = deque(maxlen=COUNT_MAX)

    def __call__(self, situation: Situation, model: Model, policy: Policy) -> Plan:
        question = situation, model, policy
        known = next((answer for asked, answer in self._answers if asked == question), None)
        if known is None:
            known = self._planner(*question)
            self._answers.appendleft((question, known))
        return known
