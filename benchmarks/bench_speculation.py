"""One stream with and without prompt lookup, in turn: answers that repeat the prompt, and prose that repeats nothing.

    python benchmarks/bench_speculation.py [--precision int8 int4] [--rounds 3]

The prompts show a base model one or two examples of the work. Both ways must write the same tokens. The goals: 2x on the
tasks, and never below 0.97x on the prose, which is drawn at temperature 1 (greedy prose of a small model repeats itself).
"""

import statistics
from dataclasses import dataclass

from common import Prompts, line, parser, print_header, print_json
from workers.ours import generate, greedy, turn_off_speculation
from workers.protocol import Timing, Watch

from engine import LLMEngine, SamplingParams

LETTER = """Dear Ms Okafor, thank you for your letter of 3 March about the heating in flat 12. Our engineer, Tomas Lindqvist, \
looked at the boiler on Tuesday and found that the pump had failed. A new pump has been ordered from the Hamburg warehouse and \
should arrive on 18 March. Until then you may borrow two electric heaters from the caretaker, and the cost of the power they use \
will be taken off your next bill."""
NOTICE = """The museum will be closed from 4 to 9 June while the roof above the east wing is mended. Tickets that were bought for \
these days stay valid until the end of the year, or can be returned at the desk. The library on the ground floor and the garden \
cafe remain open as usual, and the lecture by Professor Adeyemi on 7 June has been moved to the town hall."""
REPORT = """On the morning of 21 October the ferry Northern Star left Stavanger with 214 passengers and a crew of 36. About 40 \
minutes later the engine room reported smoke near the second generator, and Captain Ingrid Solheim turned the ship back to the \
harbour. Nobody was hurt. The fire brigade of Stavanger found a leaking fuel pipe, which was replaced the same evening."""
RECORDS = (
    ("Amara Okafor", "Lagos", "1984-02-17", "amara.okafor@example.com", "+234 802 555 0143", "civil engineer"),
    (
        "Tomas Lindqvist",
        "Gothenburg",
        "1991-11-30",
        "t.lindqvist@example.org",
        "+46 70 555 01 88",
        "heating technician",
    ),
    ("Ingrid Solheim", "Stavanger", "1969-07-05", "ingrid.solheim@example.net", "+47 555 01 172", "ship's captain"),
)
FIELDS = ("name", "city", "born", "email", "phone", "profession")
CODE = """def read_settings(path, default):
    settings = dict(default)
    with open(path) as file:
        for line in file:
            name, _, value = line.partition("=")
            settings[name.strip()] = value.strip()
    return settings
"""
CODE_2 = """def count_words(path, limit):
    counts = {}
    with open(path) as file:
        for line in file:
            for word in line.lower().split():
                counts[word] = counts.get(word, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ordered[:limit]
"""


def sentence(record: tuple[str, ...]) -> str:
    name, city, born, email, phone, profession = record
    return f"{name}, {profession}, was born on {born} and lives in {city}. Write to {email} or call {phone}."


def as_json(record: tuple[str, ...]) -> str:
    return "{" + ", ".join(f'"{key}": "{value}"' for key, value in zip(FIELDS, record, strict=True)) + "}"


def shown(first: str, second: str, examples: list[tuple[str, str]], asked: str) -> str:
    """A few-shot prompt that ends where the answer begins."""
    told = "".join(f"{first}:\n{given}\n{second}:\n{answer}\n\n" for given, answer in examples)
    return f"{told}{first}:\n{asked}\n{second}:\n"


def typed(code: str, arguments: str, result: str) -> str:
    head, _, body = code.partition("\n")
    return f"{head.partition('(')[0]}({arguments}) -> {result}:\n{body}"


@dataclass(frozen=True)
class Task:
    """``answer`` is what a good model would write; as many tokens are asked for as it has."""

    name: str
    prompt: str
    answer: str


TASKS = (
    Task(
        "extraction: sentence to JSON",
        shown("Text", "JSON", [(sentence(record), as_json(record)) for record in RECORDS[:2]], sentence(RECORDS[2])),
        as_json(RECORDS[2]),
    ),
    Task("rewriting: a fair copy", shown("Draft", "Fair copy", [(LETTER, LETTER), (NOTICE, NOTICE)], REPORT), REPORT),
    Task(
        "rewriting: British to American",
        shown(
            "British",
            "American",
            [(LETTER.replace("power", "colour"), LETTER.replace("power", "color")), (NOTICE, NOTICE)],
            REPORT.replace("harbour", "harbour of grey colour"),
        ),
        REPORT.replace("harbour", "harbor of gray color"),
    ),
    Task(
        "code: add types",
        shown("Code", "With types", [(CODE, typed(CODE, "path: str, default: dict", "dict"))], CODE_2),
        typed(CODE_2, "path: str, limit: int", "list"),
    ),
)


def run(engine: LLMEngine, prompt: list[int], params: SamplingParams) -> Timing:
    watch = Watch(1)
    generate(engine.core, [prompt], params, watch)
    return watch.timing()


def compare(
    plain: LLMEngine, fast: LLMEngine, jobs: list[tuple[list[int], SamplingParams]]
) -> tuple[list[float], list[float]]:
    """Decode speeds without and with speculation, one a job; the first job warms up."""
    pairs = [(run(plain, *job), run(fast, *job)) for job in [jobs[0], *jobs]]
    assert all(one.token_ids == other.token_ids for one, other in pairs), "speculation changed the text"
    return [one.decode_speed for one, _ in pairs[1:]], [other.decode_speed for _, other in pairs[1:]]


def main() -> None:
    flags = parser(__doc__, precisions=("int8", "int4"))
    flags.add_argument("--show", action="store_true", help="print what the model answers")
    args = flags.parse_args()
    bandwidth = print_header(args.threads, f"one stream, {args.rounds} rounds")
    prompts = Prompts()
    encode = prompts.tokenizer.encode
    figures: dict[str, list[float]] = {}
    for precision in args.precision:
        plain, fast = (LLMEngine(quantization=precision, threads=args.threads) for _ in range(2))
        turn_off_speculation(plain)
        work = {}
        for task in TASKS:
            job = (encode(task.prompt, add_bos=True), greedy(len(encode(task.answer))))
            work[task.name] = [job] * args.rounds
            if args.show:
                print(prompts.tokenizer.decode(run(plain, *job).token_ids[0]), end="\n\n")
        drawn = [
            SamplingParams(temperature=1.0, seed=seed, max_tokens=128, ignore_eos=True)
            for seed in range(4 * args.rounds)
        ]
        work["prose that repeats nothing"] = [(prompts.take(32)[0], params) for params in drawn]
        for name, jobs in work.items():
            without, with_it = compare(plain, fast, jobs)
            ratios = [b / a for a, b in zip(without, with_it, strict=True)]
            figures |= {f"{precision}, {name}": with_it, f"{precision}, {name}, without": without}
            print(line(f"{precision}, {name}", with_it, f"{statistics.median(ratios):.2f}x without"), flush=True)
    print_json("bench_speculation", args.threads, bandwidth, figures)


if __name__ == "__main__":
    main()
