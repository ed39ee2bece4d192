"""A chaos run from the idle server to the verdict.

Owns the order of things: record the canaries, fill the KV cache, attack, wait until all is quiet, judge.
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
from tests.openai_api.chaos.mix import Attacker, attack_for_ever
from tests.openai_api.chaos.observer import (
    CANARIES,
    Canaries,
    Verdict,
    ask,
    log_complaints,
    quiet_figures,
    sample_memory,
)
from tests.openai_api.chaos.servers import Target
from tests.openai_api.chaos.tally import Tally
from tests.openai_api.chaos.wire import message


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How hard and how long.

    Attributes:
        warm_up_s: of attack before the memory counts: the heap takes its size, the KV cache is filled.
        longest_pause_s: of clients that stall; from 30 s on they also meet the server's own deadlines.
        stop_every_s: the process is stopped so often (SIGSTOP), for one or two seconds.
        fill_tokens: of prompts, before the attack.
        growth_mib: how much more memory the last fifth of the run may have than the first.
    """

    num_workers: int
    seconds: float
    warm_up_s: float
    longest_pause_s: float
    stop_every_s: float
    fill_tokens: int
    growth_mib: float
    seed: int = 0


SHORT = Plan(
    num_workers=12,
    seconds=10,
    warm_up_s=4,
    longest_pause_s=2,
    stop_every_s=6,
    fill_tokens=2_000,
    growth_mib=48,
)


def long_plan(*, minutes: float, num_workers: int, seed: int = 0) -> Plan:
    """Longer pauses than the server's deadlines, and a tenth of the time to warm up."""
    return Plan(
        num_workers=num_workers,
        seconds=54 * minutes,
        warm_up_s=6 * minutes,
        longest_pause_s=min(45, 6 * minutes),
        stop_every_s=min(20, 6 * minutes),
        fill_tokens=20_000,
        growth_mib=48,
        seed=seed,
    )


async def chaos(target: Target, plan: Plan) -> Verdict:
    """Attack ``target`` as planned; the verdict over it."""
    tally = Tally()
    canaries = Canaries(target, tally)
    await canaries.record()
    await _fill(target, plan)
    verdict = Verdict([], tally.answers, before=await quiet_figures(target))
    samples_mib: list[float] = []
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        await _attack(target, plan, canaries, samples_mib)
    verdict.samples_mib = samples_mib
    verdict.num_right_canaries, verdict.num_busy_canaries = canaries.num_right, canaries.num_busy
    verdict.problems += [f"a wrong answer: {wrong}" for wrong in canaries.wrong]
    verdict.problems += [f"{problem} ({count} times)" for problem, count in tally.problems.items()]
    await _judge_end(target, plan, verdict)
    return verdict


async def _judge_end(target: Target, plan: Plan, verdict: Verdict) -> None:
    if verdict.num_right_canaries < len(CANARIES):
        verdict.problems.append(f"only {verdict.num_right_canaries} canaries were answered")
    if target.is_alive():
        assert verdict.before is not None
        try:
            verdict.after = await quiet_figures(target, num_files=verdict.before.num_files)
            verdict.judge_process(allowed_growth_mib=plan.growth_mib)
        except OSError as error:
            verdict.problems.append(f"the server does not answer: {type(error).__name__}")
    else:
        verdict.problems.append("the server has ended")
    verdict.problems += [f"in the log: {line}" for line in log_complaints(target.log.read_text())]


async def _fill(target: Target, plan: Plan) -> None:
    """Prompts unlike each other, several at a time; and large bodies, for which worker threads start."""
    rng, length = random.Random(plan.seed), min(256, target.max_model_len // 2)
    prompts = [bodies.token_ids(rng, target, length) for _ in range(plan.fill_tokens // length)]
    fields = {"model": target.model, "max_tokens": 1}
    requests = [bodies.Body(bodies.COMPLETIONS, fields | {"prompt": prompt}).encoded() for prompt in prompts]
    await asyncio.gather(*(ask(target, message("POST", bodies.COMPLETIONS, request)) for request in requests))
    path, body = bodies.huge("ids", 1 << 20, target)
    await asyncio.gather(*(ask(target, message("POST", path, body)) for _ in range(8)))


async def _attack(target: Target, plan: Plan, canaries: Canaries, samples_mib: list[float]) -> None:
    """Everybody at once, until the time is over or the server has ended."""
    everybody: list[Coroutine[Any, Any, None]] = [
        *(canaries.watch(index) for index in range(len(CANARIES))),
        *(_worker(target, plan, canaries.tally, number) for number in range(plan.num_workers)),
        _stop_now_and_then(target, plan),
    ]
    tasks = [asyncio.create_task(each) for each in everybody]
    try:
        await _pass(target, plan.warm_up_s)
        tasks.append(asyncio.create_task(sample_memory(target, samples_mib)))
        await _pass(target, plan.seconds)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception) and target.is_alive():
            raise error  # a mistake of ours


async def _worker(target: Target, plan: Plan, tally: Tally, number: int) -> None:
    rng = random.Random(f"{plan.seed}/{number}")
    await attack_for_ever(Attacker(target, rng, tally, plan.longest_pause_s))


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
