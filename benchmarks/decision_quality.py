"""How often ``/v1/decisions`` is right about texts of a CSV file with the columns ``text`` and ``category``.

    python benchmarks/decision_quality.py LABELLED.csv [--held-out 1000] [--question "What is this about?"] [--examples 0 20]

Lines are shuffled by a fixed seed; the first are held out and asked, examples for the question are of the others. Beside
it TF-IDF with logistic regression (``pip install scikit-learn``), trained on 1, 5, and all of the others of each category.
"""

import csv
import json
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from common import parser
from serving import Server, server

SEED, CONNECTIONS = 77, 8


@dataclass(frozen=True)
class Line:
    text: str
    label: str


def lines_of(path: Path) -> list[Line]:
    with path.open(newline="", encoding="utf-8") as file:
        lines = [Line(row["text"].strip(), row["category"].replace("_", " ").strip()) for row in csv.DictReader(file)]
    random.Random(SEED).shuffle(lines)
    return lines


def instructions_of(question: str, examples: Sequence[Line]) -> str:
    shown = "".join(f"\nText: {line.text}\nAnswer: {line.label}" for line in examples)
    return question + shown


def ask_all(address: Server, held_out: Sequence[Line], labels: Sequence[str], instructions: str) -> float:
    """The share of right answers."""
    question = {"type": "choice", "instructions": instructions, "choices": [{"value": label} for label in labels]}

    def is_right(line: Line) -> bool:
        connection = address.connect()
        body = json.dumps({"model": "m", "input": line.text, "questions": [question]})
        connection.request("POST", "/v1/decisions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        connection.close()
        assert answer.status == 200, content
        return content["answers"][0]["choice"] == line.label

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return sum(pool.map(is_right, held_out)) / len(held_out)


def of_each(lines: Sequence[Line], most: int) -> list[Line]:
    """The first ``most`` of every category."""
    kept: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if len(kept[line.label]) < most:
            kept[line.label].append(line)
    return [line for each in kept.values() for line in each]


def baseline(train: Sequence[Line], held_out: Sequence[Line]) -> float:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
    )
    model.fit([line.text for line in train], [line.label for line in train])
    return float(model.score([line.text for line in held_out], [line.label for line in held_out]))


def main() -> None:
    made = parser(__doc__)
    made.add_argument("file", type=Path)
    made.add_argument("--held-out", type=int, default=1000)
    made.add_argument("--question", default="What is this about?")
    made.add_argument("--examples", type=int, nargs="+", default=[0, 20])
    args = made.parse_args()
    lines = lines_of(args.file)
    held_out, others = lines[: args.held_out], lines[args.held_out :]
    labels = sorted({line.label for line in lines})
    print(f"{len(labels)} categories, {len(held_out)} held out, {len(others)} others")
    with server(args.threads) as ours:
        for num_examples in args.examples:
            began_s = time.perf_counter()
            share = ask_all(ours, held_out, labels, instructions_of(args.question, others[:num_examples]))
            speed = len(held_out) / (time.perf_counter() - began_s)
            print(f"decisions, {num_examples} examples   {share:.3f}   {speed:.1f} texts/s", flush=True)
    for most in (1, 5, len(others)):
        train = of_each(others, most)
        print(f"TF-IDF and logistic regression, {len(train)} lines   {baseline(train, held_out):.3f}", flush=True)


if __name__ == "__main__":
    main()
