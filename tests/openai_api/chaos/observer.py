"""The canaries, the figures of the process, and the verdict over a run.

Owns what must hold whatever the attackers do. Answers to the attackers themselves are the
``tally``'s.
"""

import asyncio
import json
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.openai_api.chaos.bodies import CHAT, COMPLETIONS
from tests.openai_api.chaos.servers import MODEL, Target
from tests.openai_api.chaos.tally import Tally, is_busy
from tests.openai_api.chaos.wire import Answer, Connection, NoAnswerError, events_of, message

# Worker threads start when they are first needed; a thread for each request would be hundreds.
SPARE_THREADS = 8
GAUGES = ("num_requests_running", "num_requests_waiting", "http_requests_in_flight", "kv_cache_usage_perc")
SEEDED = {"temperature": 1.0, "seed": 11, "top_p": 0.9}


@dataclass(frozen=True)
class Canary:
    """A request whose answer is known: it was recorded when nobody else was there."""

    path: str
    fields: Mapping[str, Any]

    def request(self, *, streams: bool) -> bytes:
        more = {"stream": True, "stream_options": {"include_usage": True}} if streams else {}
        fields = {"model": MODEL, "ignore_eos": True, "return_token_ids": True, "max_tokens": 16}
        return message("POST", self.path, json.dumps(fields | dict(self.fields) | more).encode())


CANARIES = (
    Canary(COMPLETIONS, {"prompt": "The capital of France is", "temperature": 0}),
    Canary(COMPLETIONS, {"prompt": [2, *(7 + i * i % 350 for i in range(200))], **SEEDED, "n": 2}),
    Canary(CHAT, {"messages": [{"role": "user", "content": "Tell me of the sea."}], "temperature": 0}),
    Canary(CHAT, {"messages": [{"role": "user", "content": "\u65e5\u672c\u8a9e?"}], **SEEDED, "top_k": 50}),
)


@dataclass(frozen=True)
class Reply:
    """All of an answer that must not depend on who else is there; how it was streamed is not among
    it.
    """

    choices: Mapping[int, tuple[str, tuple[int, ...], str]]
    usage: Mapping[str, object]


def reply_of(answer: Answer, *, streams: bool) -> Reply:
    chunks = [json.loads(event) for event in events_of(answer.body)[:-1]] if streams else [answer.json]
    parts: dict[int, list[tuple[str, list[int], str]]] = {}
    usage: dict[str, object] = {}
    for chunk in chunks:
        usage |= {name: count for name, count in (chunk.get("usage") or {}).items() if isinstance(count, int)}
        for choice in chunk["choices"]:
            text = choice.get("text") or (choice.get("message") or choice.get("delta") or {}).get("content") or ""
            part = (text, choice.get("token_ids", []), choice["finish_reason"] or "")
            parts.setdefault(choice["index"], []).append(part)
    choices = {index: _joined(gains) for index, gains in parts.items()}
    return Reply(choices, usage)


def _joined(gains: Sequence[tuple[str, list[int], str]]) -> tuple[str, tuple[int, ...], str]:
    texts, ids, reasons = zip(*gains, strict=True)
    return "".join(texts), tuple(token_id for some in ids for token_id in some), "".join(reasons)


async def ask(target: Target, request: bytes) -> Answer:
    async with await Connection.open(target.address) as connection:
        await connection.send(request)
        return await connection.answer()


@dataclass
class Canaries:
    """Mutable: counts of right answers by canary, and the wrong ones in words.

    ``is_over`` ends ``watch``.
    """

    target: Target
    tally: Tally
    expected: list[Reply] = field(default_factory=list)
    num_right: Counter[int] = field(default_factory=Counter)
    num_busy: int = 0
    is_over: bool = False
    wrong: list[str] = field(default_factory=list)

    async def record(self) -> None:
        """On the idle server. Streamed and whole, each twice, they are the same."""
        for canary in CANARIES:
            replies = [
                reply_of(await ask(self.target, canary.request(streams=streams)), streams=streams)
                for streams in (False, True, False, True)
            ]
            assert all(reply == replies[0] for reply in replies), f"not even alone the same: {replies}"
            self.expected.append(replies[0])

    async def watch(self, index: int) -> None:
        """Ask one of them again and again, until it is over."""
        streams = False
        while not self.is_over:
            streams = not streams
            try:
                await self._check(index, streams=streams)
            except (OSError, NoAnswerError) as error:
                self.tally.problem("canary", f"{type(error).__name__} {error}")
            await asyncio.sleep(0.1)

    async def _check(self, index: int, *, streams: bool) -> None:
        answer = await ask(self.target, CANARIES[index].request(streams=streams))
        if is_busy(answer):
            self.num_busy += 1
            await asyncio.sleep(1)
            return
        num_problems = self.tally.problems.total()
        (self.tally.judge_stream if streams else self.tally.judge)("canary", answer, 200)
        if self.tally.problems.total() > num_problems or answer.status != 200:
            return
        reply = reply_of(answer, streams=streams)
        if reply == self.expected[index]:
            self.num_right[index] += 1
        else:
            self.wrong.append(f"canary {index}: {reply} instead of {self.expected[index]}")


@dataclass(frozen=True)
class Figures:
    """A look at the process from outside: counts, MiB of memory and the gauges of ``/metrics``."""

    num_files: int
    num_threads: int
    anonymous_mib: float
    peak_mib: float
    is_healthy: bool
    gauges: Mapping[str, float]

    @property
    def is_quiet(self) -> bool:
        """Nobody is served but whoever asks for the metrics; what the KV cache holds is cached
        prefixes alone.
        """
        return [self.gauges.get(name) for name in GAUGES] == [0, 0, 1, 0]


async def figures(target: Target) -> Figures:
    text = (await ask(target, message("GET", "/metrics"))).body.decode()
    gauges = {name: float(value) for name, value in re.findall(r"^gemma3:(\w+) (\S+)$", text, re.MULTILINE)}
    return Figures(
        target.num_files(),
        target.num_threads(),
        target.anonymous_mib(),
        target.peak_mib(),
        (await ask(target, message("GET", "/health"))).status == 200,
        {name: gauges[name] for name in GAUGES if name in gauges},
    )


async def quiet_figures(target: Target, *, within_s: float, num_files: int | None = None) -> Figures:
    """When all is quiet and no more than ``num_files`` are open; the last look if that does not
    come about in time.
    """
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        now = await figures(target)
        is_late = asyncio.get_running_loop().time() > deadline
        if is_late or (now.is_quiet and (num_files is None or now.num_files <= num_files)):
            return now
        await asyncio.sleep(0.2)


def log_complaints(log: str) -> list[str]:
    """Records of errors, and whatever is no record: a traceback."""
    complaints = []
    for line in log.splitlines():
        is_record = line.startswith("{")
        if not is_record or json.loads(line)["level"] in {"error", "critical"}:
            complaints.append(line[:300])
    return complaints


@dataclass
class Verdict:
    """What a run has shown. ``problems`` is empty when one request never hurt another.

    ``looks`` are at the quiet server: before the first round and after each.
    """

    problems: list[str]
    answers: Counter[str] = field(default_factory=Counter)
    num_right_canaries: int = 0
    num_busy_canaries: int = 0
    looks: list[Figures] = field(default_factory=list)

    @property
    def growth_mib(self) -> float:
        """Of the median round.

        A leak grows in every round; a heap that finds its size jumps in one.
        """
        return statistics.median(b.anonymous_mib - a.anonymous_mib for a, b in pairwise(self.looks))

    def judge_process(self, *, allowed_growth_mib: float) -> None:
        """Add the problems that the figures show."""
        before, after = self.looks[0], self.looks[-1]
        if self.growth_mib > allowed_growth_mib:
            self.problems.append(f"memory grows by {self.growth_mib:.0f} MiB a round")
        if not after.is_healthy:
            self.problems.append("/health is not 200")
        if not after.is_quiet:
            self.problems.append(f"something is left: {dict(after.gauges)}")
        if after.num_files > before.num_files:
            self.problems.append(f"{before.num_files} files were open, now {after.num_files}")
        if after.num_threads > before.num_threads + SPARE_THREADS:
            self.problems.append(f"{before.num_threads} threads ran, now {after.num_threads}")

    def __str__(self) -> str:
        lines = [f"{name:44} {count}" for name, count in sorted(self.answers.items())]
        lines += [f"canaries: {self.num_right_canaries} right, {self.num_busy_canaries} told to come again"]
        for look in self.looks:
            memory = f"{look.anonymous_mib:.0f} MiB (resident at most {look.peak_mib:.0f})"
            process = f"{memory}, {look.num_files} files, {look.num_threads} threads"
            lines.append(f"quiet: {process}, {dict(look.gauges)}")
        return "\n".join([*lines, *(f"PROBLEM {problem}" for problem in self.problems or ["none"])])
