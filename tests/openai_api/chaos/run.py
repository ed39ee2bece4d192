"""A chaos run from the idle server to the verdict.

Owns the order of things: record the canaries, fill the KV cache, attack, wait until all is quiet,
judge.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from tests.openai_api.chaos import bodies
from tests.openai_api.chaos.attacker import Attacker
from tests.openai_api.chaos.mix import attack_for_ever
from tests.openai_api.chaos.observer import (
    CANARIES,
    Canaries,
    Verdict,
    ask,
    log_complaints,
    quiet_figures,
)
from tests.openai_api.chaos.servers import Target
from tests.openai_api.chaos.tally import Tally
from tests.openai_api.chaos.wire import message

MAX_TOLD = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How hard and how long.

    Attributes:
        warm_up_s: of attack before the first round: the heap takes its size, the KV cache is
            filled.
        num_rounds: of ``round_s`` seconds; after each the server must become quiet.
        longest_pause_s: of clients that stall; from 30 s on they also meet the server's own
            deadlines.
        stop_every_s: the process is stopped so often (SIGSTOP), for one or two seconds.
        quiet_within_s: after an attack; the deadlines of connections that stay open are 10 to 60 s.
        fill_tokens: of prompts, before the attack.
        growth_mib: how much more memory a quiet server may have after a usual round than before it.
    """

    num_workers: int
    warm_up_s: float
    num_rounds: int
    round_s: float
    longest_pause_s: float
    stop_every_s: float
    quiet_within_s: float
    fill_tokens: int
    growth_mib: float
    seed: int = 0


@dataclass(frozen=True)
class Place:
    """Which worker of which round.

    The workers are three callers; the canaries come from a fourth address.
    """

    round_no: int
    number: int

    @property
    def source(self) -> str:
        return f"127.0.0.{2 + self.number % 3}"


SHORT = Plan(
    num_workers=12,
    warm_up_s=4,
    num_rounds=3,
    round_s=4,
    longest_pause_s=2,
    stop_every_s=3,
    quiet_within_s=20,
    fill_tokens=20_000,
    growth_mib=24,
)


def long_plan(*, minutes: float, num_workers: int, seed: int = 0) -> Plan:
    """With pauses longer than the server's deadlines."""
    return Plan(
        num_workers=num_workers,
        warm_up_s=10 * minutes,
        num_rounds=5,
        round_s=10 * minutes,
        longest_pause_s=min(45, 5 * minutes),
        stop_every_s=min(20, 5 * minutes),
        quiet_within_s=120,
        fill_tokens=40_000,
        growth_mib=24,
        seed=seed,
    )


async def chaos(target: Target, plan: Plan) -> Verdict:
    """Attack ``target`` as planned; the verdict over it."""
    canaries = Canaries(target, Tally())
    await canaries.record()
    await _fill(target, plan)
    verdict = Verdict([], canaries.tally.answers)
    with contextlib.suppress(ProcessLookupError, FileNotFoundError, ConnectionError):  # it has ended: see below
        await _attack(target, plan, canaries, 0)
        verdict.looks.append(await quiet_figures(target, within_s=plan.quiet_within_s))
        for round_no in range(1, plan.num_rounds + 1):
            await _attack(target, plan, canaries, round_no)
            num_files = verdict.looks[0].num_files
            verdict.looks.append(await quiet_figures(target, within_s=plan.quiet_within_s, num_files=num_files))
    verdict.num_right_canaries, verdict.num_busy_canaries = canaries.num_right.total(), canaries.num_busy
    verdict.problems += [f"a wrong answer: {wrong}" for wrong in canaries.wrong[:MAX_TOLD]]
    verdict.problems += [f"{len(canaries.wrong)} wrong answers"] if canaries.wrong else []
    verdict.problems += [f"{problem} ({count} times)" for problem, count in canaries.tally.problems.items()]
    verdict.problems += [f"canary {i} was never answered" for i in range(len(CANARIES)) if not canaries.num_right[i]]
    _judge_end(target, plan, verdict)
    return verdict


def _judge_end(target: Target, plan: Plan, verdict: Verdict) -> None:
    if not target.is_alive():
        verdict.problems.append("the server has ended")
    elif len(verdict.looks) <= plan.num_rounds:
        verdict.problems.append("the server does not answer")
    else:
        verdict.judge_process(allowed_growth_mib=plan.growth_mib)
    verdict.problems += [f"in the log: {line}" for line in log_complaints(target.log.read_text())]


async def _fill(target: Target, plan: Plan) -> None:
    """Prompts unlike each other, several at a time; and large bodies, for which worker threads
    start.
    """
    rng, length = random.Random(plan.seed), min(256, target.max_model_len // 2)
    prompts = [bodies.token_ids(rng, target, length) for _ in range(plan.fill_tokens // length)]
    fields = {"model": target.model, "max_tokens": 1}
    requests = [bodies.Body(bodies.COMPLETIONS, fields | {"prompt": prompt}).encoded() for prompt in prompts]
    await asyncio.gather(*(ask(target, message("POST", bodies.COMPLETIONS, request)) for request in requests))
    path, body = bodies.huge("ids", 1 << 20, target)
    await asyncio.gather(*(ask(target, message("POST", path, body)) for _ in range(8)))


async def _attack(target: Target, plan: Plan, canaries: Canaries, round_no: int) -> None:
    """Everybody at once, until the time is over or the server has ended.

    The canaries' last answers are awaited.
    """
    hostile: list[Coroutine[Any, Any, None]] = [
        *(_worker(target, plan, canaries.tally, Place(round_no, number)) for number in range(plan.num_workers)),
        _stop_now_and_then(target, plan),
    ]
    attackers = [asyncio.create_task(each) for each in hostile]
    watchers = [asyncio.create_task(canaries.watch(index)) for index in range(len(CANARIES))]
    try:
        await _pass(target, plan.round_s if round_no else plan.warm_up_s)
    finally:
        for task in attackers:
            task.cancel()
        canaries.is_over = True
        ended = await asyncio.gather(*attackers, *watchers, return_exceptions=True)
        canaries.is_over = False
    for error in ended:
        if isinstance(error, Exception) and target.is_alive():
            raise error  # a mistake of ours


async def _worker(target: Target, plan: Plan, tally: Tally, place: Place) -> None:
    rng = random.Random(f"{plan.seed}/{place.round_no}/{place.number}")
    await attack_for_ever(Attacker(target, place.source, rng, tally, plan.longest_pause_s))


async def _pass(target: Target, seconds: float) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while target.is_alive() and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.2)


async def _stop_now_and_then(target: Target, plan: Plan) -> None:
    """A stopped process: a laptop's lid, a debugger, a machine that swaps."""
    rng = random.Random(plan.seed)
    while True:
        await asyncio.sleep(plan.stop_every_s)
        os.kill(target.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(rng.uniform(0.5, 2))
        finally:
            os.kill(target.pid, signal.SIGCONT)
