"""Answers of a promised shape beside free text of the same engine, in turn in one run.

    python benchmarks/bench_structured_output.py [--streams 1 16] [--cases extraction choice mask decisions] [--rounds 3]
        [--labels FILE]

* extraction: answers/s of an object of 8 keys, beside free greedy text of the same number of tokens without speculation.
* choice: one of 77 labels, beside the prefill of its prompt.
* mask: how much of the time of answers with free strings goes to their grammar.
* decisions: texts/s of a question with 77 options about 60 tokens, over HTTP, by one and by 8 connections. What they
  cost goes by the tokens of the options: ``--labels`` has others, one in a line.
"""

import json
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from common import Prompts, line, parser, print_header, print_json
from serving import Server, server
from structured_tasks import LABELS, SCHEMA, extraction_prompt, lark_choice
from timed_grammar import TimedGrammar
from workers.ours import greedy, turn_off_speculation

from engine import LLMEngine, SamplingParams
from engine.engine_core import EngineCore
from engine.grammar.spec import GrammarKind, GrammarSpec

CASES = ("extraction", "choice", "mask", "decisions")
MAX_TOKENS, PROSE_TOKENS = 200, 64
DECISION_STREAMS = (1, 8)  # each text is a sequence for every option, and one caller may have 1,024 of them waiting
ANSWERS_OF_ONE_STREAM = 8
TEXTS = 32  # a round of decisions; the first lasts until what a server does after its start is done
PROSE = {"type": "object", "properties": {name: {"type": "string"} for name in ("title", "summary", "place", "person")}}
Job = tuple[Sequence[int], SamplingParams]


@dataclass(frozen=True)
class Answers:
    """What came of some jobs."""

    seconds: float
    num_tokens: list[int]

    @property
    def per_s(self) -> float:
        return len(self.num_tokens) / self.seconds


def run(core: EngineCore, jobs: Sequence[Job], num_streams: int) -> Answers:
    """All jobs, ``num_streams`` at a time."""
    num_tokens = [0] * len(jobs)
    began_s = time.perf_counter()
    for first in range(0, len(jobs), num_streams):
        for number, (prompt, params) in enumerate(jobs[first : first + num_streams], first):
            core.add_request(str(number), prompt, params)
        while core.has_unfinished_requests:
            result = core.step()
            assert not result.errors, result.errors
            for output in result.outputs:
                num_tokens[int(output.request_id)] += sum(len(delta.token_ids) for delta in output.deltas)
    return Answers(time.perf_counter() - began_s, num_tokens)


@dataclass(frozen=True)
class Bench:
    """``plain`` takes a step for every token."""

    fast: LLMEngine
    plain: LLMEngine
    prompts: Prompts
    rounds: int

    @classmethod
    def of(cls, precision: str, num_threads: int, rounds: int) -> "Bench":
        fast, plain = (LLMEngine(quantization=precision, threads=num_threads) for _ in range(2))
        turn_off_speculation(plain)
        return cls(fast, plain, Prompts(), rounds)

    def constrained(self, kind: GrammarKind, text: str) -> SamplingParams:
        grammar = self.fast.loaded.grammars.compile(GrammarSpec(kind, text, lead=" "))
        return SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS, grammar=grammar)

    def encode(self, prompt: str) -> list[int]:
        return self.prompts.tokenizer.encode(prompt, add_bos=True)


def extraction(bench: Bench, num_streams: int) -> dict[str, list[float]]:
    params = bench.constrained(GrammarKind.JSON_SCHEMA, json.dumps(SCHEMA))
    num_jobs = max(num_streams, ANSWERS_OF_ONE_STREAM)
    prompts = [bench.encode(extraction_prompt(number)) for number in range(num_jobs)]
    jobs = [(prompt, params) for prompt in prompts]
    lengths = run(bench.fast.core, jobs, num_streams).num_tokens  # it warms up too
    free_jobs = [(prompt, greedy(length)) for prompt, length in zip(prompts, lengths, strict=True)]
    run(bench.plain.core, free_jobs, num_streams)
    shaped, free = [], []
    for _ in range(bench.rounds):
        free.append(run(bench.plain.core, free_jobs, num_streams).per_s)
        shaped.append(run(bench.fast.core, jobs, num_streams).per_s)
    name = f"extraction, {num_streams} streams"
    ratio = statistics.median(a / b for a, b in zip(shaped, free, strict=True))
    note = f"{ratio:.2f}x free text; {statistics.mean(lengths):.0f} tokens each"
    print(line(name, shaped, note, unit="answers/s"))
    print(line(f"{name}, free text", free, unit="answers/s"), flush=True)
    return {name: shaped, f"{name}, free": free}


def choice(bench: Bench, num_prompt: int) -> dict[str, list[float]]:
    """Prompts that were never computed before, in turn for the first token alone and for a label."""
    params = bench.constrained(GrammarKind.LARK, lark_choice(LABELS))
    shaped, prefill = [], []
    for _ in range(ANSWERS_OF_ONE_STREAM * bench.rounds + 1):
        one, other = bench.prompts.take(num_prompt, 2)
        prefill.append(run(bench.fast.core, [(one, greedy(1))], 1).seconds * 1e3)
        shaped.append(run(bench.fast.core, [(other, params)], 1).seconds * 1e3)
    shaped, prefill = shaped[1:], prefill[1:]
    ratio = statistics.median(a / b for a, b in zip(shaped, prefill, strict=True))
    name = f"one of {len(LABELS)} after {num_prompt} tokens"
    print(line(name, shaped, f"{ratio:.2f}x the prefill", unit="ms"))
    print(line(f"{name}, prefill", prefill, unit="ms"), flush=True)
    return {name: shaped, f"{name}, prefill": prefill}


def mask(bench: Bench, num_streams: int) -> dict[str, list[float]]:
    """Strings without a bound, at temperature 1, after prose that no two prompts share."""
    params = bench.constrained(GrammarKind.JSON_SCHEMA, json.dumps(PROSE | {"required": list(PROSE["properties"])}))
    assert params.grammar is not None
    shares = []
    for _ in range(bench.rounds + 1):
        timed = TimedGrammar(params.grammar)
        drawn = replace(params, grammar=timed, temperature=1.0, max_tokens=PROSE_TOKENS)
        prompts = bench.prompts.take(32, max(num_streams, ANSWERS_OF_ONE_STREAM))
        jobs = [(prompt, replace(drawn, seed=seed)) for seed, prompt in enumerate(prompts)]
        seconds = run(bench.fast.core, jobs, num_streams).seconds
        shares.append(100 * timed.seconds / seconds)
    name = f"grammar's share, {num_streams} streams"
    print(line(name, shares[1:], unit="%"), flush=True)
    return {name: shares[1:]}


def decisions(
    address: Server, prompts: Prompts, num_streams: int, rounds: int, labels: Sequence[str]
) -> dict[str, list[float]]:
    """The same question about texts that nobody read before."""
    question = {"type": "choice", "instructions": "What is it about?", "choices": [{"value": v} for v in labels]}

    def decide(text: str) -> None:
        connection = address.connect()
        body = json.dumps({"model": "m", "input": text, "questions": [question]})
        connection.request("POST", "/v1/decisions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        assert answer.status == 200, content

    speeds = []
    for _ in range(rounds + 1):
        taken = prompts.take(61, TEXTS)
        texts = [prompts.tokenizer.decode(ids[1:]) for ids in taken]
        began_s = time.perf_counter()
        with ThreadPoolExecutor(num_streams) as pool:
            list(pool.map(decide, texts))
        speeds.append(len(texts) / (time.perf_counter() - began_s))
    name = f"decisions of {len(labels)}, {num_streams} streams"
    print(line(name, speeds[1:], unit="texts/s"), flush=True)
    return {name: speeds[1:]}


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--precision", choices=("int8", "int4"), default="int8")
    flags.add_argument("--streams", type=int, nargs="+", default=[1, 16])
    flags.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    flags.add_argument("--labels", type=Path, help="the options of decisions, one in a line")
    args = flags.parse_args()
    bandwidth = print_header(args.threads, f"{args.precision}, {args.rounds} rounds")
    bench = Bench.of(args.precision, args.threads, args.rounds)
    figures: dict[str, list[float]] = {}
    for num_streams in args.streams:
        if "extraction" in args.cases:
            figures |= extraction(bench, num_streams)
        if "mask" in args.cases:
            figures |= mask(bench, num_streams)
    if "choice" in args.cases:
        for num_prompt in (64, 256):
            figures |= choice(bench, num_prompt)
    if "decisions" in args.cases:
        labels = LABELS if args.labels is None else args.labels.read_text().splitlines()
        with server(args.threads, "--quantization", args.precision) as ours:
            for num_streams in DECISION_STREAMS:
                figures |= decisions(ours, bench.prompts, num_streams, args.rounds, labels)
    print_json("bench_structured_output", args.threads, bandwidth, figures, precision=args.precision)


if __name__ == "__main__":
    main()
