"""How many tokens each running sequence computes in a step.

Owns the shares of one step: a token for each that decodes, what is left to prompts, and whose turn
that is. Knows neither blocks nor the queue. The promises that follow are in ``scheduler.py``. Engine
thread only.
"""

from collections import abc

from engine.prefill_pace import PrefillShare, num_paced
from engine.scheduler_config import SchedulerConfig
from engine.sequence import Sequence

Plan = dict[Sequence, int]


class StepPlanner:
    """Remembers one thing from step to step: whether the oldest prompt was passed over."""

    def __init__(self) -> None:
        self._passed_over_oldest = False

    def plan(
        self,
        running: abc.Iterable[Sequence],
        config: SchedulerConfig,
        *,
        share_beside: abc.Callable[[int], PrefillShare],
    ) -> Plan:
        """Tokens of each, within the budget and the share of prefill; 0 for a prompt that has to
        wait.

        ``running``: oldest first. ``share_beside``: by how many sequences decode.
        """
        decodes: list[Sequence] = []
        prefills: list[Sequence] = []
        for seq in running:
            (decodes if seq.decodes else prefills).append(seq)
        plan = _plan_decodes(decodes, config, num_reserved=config.prefill_chunk_tokens if prefills else 0)
        if prefills:
            budget = config.max_num_batched_tokens - sum(plan.values())
            self._plan_prefills(plan, prefills, config, budget=budget, share=share_beside(num_paced(decodes, prefills)))
        return plan

    def _plan_prefills(
        self, plan: Plan, prefills: list[Sequence], config: SchedulerConfig, *, budget: int, share: PrefillShare
    ) -> None:
        """Add them to ``plan``: a whole chunk for the first in turn, what is left for the others."""
        in_turn = self._in_turn(prefills)
        for seq in in_turn:
            assert seq.num_uncomputed_tokens > 0, f"sequence {seq.seq_id} has nothing to compute and was not finished"
            chunk = min(seq.num_uncomputed_tokens, config.prefill_chunk_tokens, share.whole(seq))
            plan[seq] = min(chunk, budget, share.left(seq))
            budget -= plan[seq]
            share.take(seq, plan[seq])
        if plan[in_turn[0]] > 0:
            self._passed_over_oldest = in_turn[0] is not prefills[0]

    def _in_turn(self, prefills: abc.Sequence[Sequence]) -> list[Sequence]:
        """The shortest remainder first, but the oldest before all if it was passed over."""
        oldest, is_due = prefills[0], self._passed_over_oldest
        return sorted(prefills, key=lambda seq: (not (is_due and seq is oldest), seq.num_uncomputed_tokens))


def _plan_decodes(decodes: abc.Sequence[Sequence], config: SchedulerConfig, *, num_reserved: int) -> Plan:
    """A token for each, and the forced ones before it while the budget has room for them."""
    num_left = config.max_num_batched_tokens - len(decodes) - num_reserved
    plan = {}
    for seq in decodes:
        num_forced = min(seq.num_uncomputed_tokens - 1, num_left)
        plan[seq] = 1 + num_forced
        num_left -= num_forced
    return plan
