"""``gemma3-server batch``, whole, over a tiny model: every row once, in order, whatever happens."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.engine_options import EngineOptions
from openai_api.batch.batch_run import Question
from openai_api.batch.command import check_files, flag_parser, main
from openai_api.batch.outputs import encoder
from openai_api.batch.row_engine import RowEngine
from openai_api.batch.sources import open_source
from openai_api.batch.template_task import Template
from tests.engine.engines import tiny_checkpoint

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tiny_checkpoint(tmp_path_factory.mktemp("batch") / "tiny")
    return ["--model", str(path), "--kv-cache-memory", "64MiB", "--max-num-seqs", "8", "--quiet"]


def request(number: int, **fields: Any) -> dict[str, Any]:
    rng = random.Random(number)
    prompt = [2, *(rng.randrange(107, 363) for _ in range(rng.randrange(1, 40)))]
    body = {
        "prompt": prompt,
        "max_tokens": rng.randrange(1, 30),
        "ignore_eos": True,
        "temperature": number % 2,
        "seed": 7,
    }
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/completions", "body": {**body, **fields}}


def write_lines(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def answers_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """What of an answer is the same in every run: its ids and times are not."""
    for line in answers_in(path):
        yield line["custom_id"], json.dumps(line["response"]["body"]["choices"])


def test_a_bad_row_is_an_error_record_and_the_others_are_answered(model: list[str], tmp_path: Path) -> None:
    lines = [
        request(0),
        "no JSON",
        {**request(1), "url": "/v1/embeddings"},
        request(2, temperature=-1),
        request(3, stream=True),
        request(4, model="other"),
        {
            "custom_id": "d",
            "url": "/v1/decisions",
            "body": {"input": "x", "questions": [{"type": "predicate", "instructions": "Is it?"}]},
        },
        request(5),
    ]
    out = tmp_path / "out.jsonl"
    assert main([str(write_lines(tmp_path / "in.jsonl", lines)), "-o", str(out), *model]) == 1
    told = answers_in(out)
    assert [line["custom_id"] for line in told] == ["r0", None, "r1", "r2", "r3", "r4", "d", "r5"]
    assert [line["response"] and line["response"]["status_code"] for line in told] == [
        200,
        None,
        None,
        400,
        400,
        404,
        200,
        200,
    ]
    assert told[3]["response"]["body"]["error"]["param"] == "temperature"
    assert told[6]["response"]["body"]["answers"]


def test_a_table_gets_a_column(model: list[str], tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([["n", "text"], *([n, f"line {n},\n{'ab' * n}"] for n in range(20))])
    status = main([str(source), "-o", str(out), "--template", "{text}\\n: ", "--choice", "yes", "no", *model])
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert status == 0
    assert [row["n"] for row in rows] == [str(n) for n in range(20)]
    assert {row["answer"] for row in rows} <= {"yes", "no"}
    assert {row["error"] for row in rows} == {""}


def test_a_question_takes_the_choice_that_decisions_take(model: list[str], tmp_path: Path) -> None:
    """With the same confidence; finished, it stays as it is, and another question does not go on."""
    texts, choices = [f"line {n} {'ab' * n}" for n in range(12)], ["age limit", "card_arrival", "exchange"]
    question = {"type": "choice", "instructions": "What\nis it?", "choices": [{"value": each} for each in choices]}
    lines = [
        {"custom_id": text, "url": "/v1/decisions", "body": {"input": f"Text: {text}", "questions": [question]}}
        for text in texts
    ]
    asked, decided, out = write_lines(tmp_path / "a.jsonl", lines), tmp_path / "d.jsonl", tmp_path / "out.csv"
    assert main([str(asked), "-o", str(decided), *model]) == 0
    expected = [line["response"]["body"]["answers"][0] for line in answers_in(decided)]
    source = write_lines(tmp_path / "in.csv", ["text", *texts])
    flags = ["--template", "Text: {text}", "--question", "What\\nis it?", "--column", "topic", "--choice", *choices]
    assert main([str(source), "-o", str(out), *model, *flags]) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == texts
    assert [(row["topic"], float(row["confidence"])) for row in rows] == [
        (each["choice"], each["confidence"]) for each in expected
    ]
    before = out.read_bytes()
    assert main([str(source), "-o", str(out), *model, *flags]) == 0
    assert out.read_bytes() == before
    assert main([str(source), "-o", str(out), *model, *flags[:3], "Another?", *flags[4:]]) == 2


def test_a_row_engine_gives_the_command_s_bytes_to_several_threads(model: list[str], tmp_path: Path) -> None:
    source, out = (
        write_lines(tmp_path / "in.csv", ["text", *(f"{n} {'ab' * n}" for n in range(40))]),
        tmp_path / "o.jsonl",
    )
    flags = ["--template", "{text}: ", "--max-tokens", "8", "--temperature", "1", "--seed", "7"]
    assert main([str(source), "-o", str(out), *flags, *model]) == 0
    settings = {"max_tokens": 8, "temperature": 1.0, "seed": 7}
    question = Question(Template("{text}: "), settings, properties=(), column="answer")
    options = EngineOptions(model=model[1], kv_cache_memory=64 << 20, max_num_seqs=8)
    with closing(open_source(source)) as table:
        rows = list(table.rows())
    with RowEngine(question, options=options) as engine, ThreadPoolExecutor(2) as threads:
        blocks = list(threads.map(engine.answers, (rows[:20], rows[20:])))
    encode = encoder(out, ())
    assert b"".join(encode(record) for block in blocks for record in block) == out.read_bytes()


def test_a_row_engine_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises((ValueError, OSError), match="missing"):
        RowEngine(None, options=EngineOptions(model=str(tmp_path / "missing")))


def test_a_finished_output_is_left_as_it_is(model: list[str], tmp_path: Path) -> None:
    command = [
        str(write_lines(tmp_path / "in.jsonl", [request(n) for n in range(3)])),
        "-o",
        str(tmp_path / "out.jsonl"),
    ]
    assert main([*command, *model]) == 0
    before = (tmp_path / "out.jsonl").read_bytes()
    assert main([*command, *model]) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == before


DECIDED = ["-o", "out.jsonl", "--template", "{text}", "--question", "Is it?", "--choice"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["-o", "out.txt"], "--output"),
        (["-o", "out.csv", "--template", "{text}"], "--output"),
        (["-o", "in.jsonl", "--template", "{text}"], "it is the input"),
        (["-o", "out.jsonl", "--template", "{text}", "--column", ""], "--column must"),
        (["-o", "out.jsonl", "--template", "none"], "--template"),
        (["-o", "out.jsonl", "--template", "{text}", "--schema", "missing.json"], "missing.json"),
        (["-o", "nowhere/out.jsonl", "--template", "{text}"], "nowhere"),
        (["-o", "out.jsonl", "--choice", "yes", "no"], "--choice needs --template"),
        (["-o", "out.jsonl", "--schema", "any.json"], "--schema needs --template"),
        (["-o", "out.jsonl", "--question", "Is it?"], "--question needs --template"),
        (["-o", "out.jsonl", "--template", "{text}", "--question", "Is it?"], "--question needs --choice"),
        (["-o", "out.jsonl", "--template", "{text}", "--column", "error"], "--column error"),
        ([*DECIDED, "yes", "no", "--column", "confidence"], "--column confidence"),
        ([*DECIDED, "yes"], "at least 2"),
        ([*DECIDED, "yes", "no", "yes"], "choices[2]"),
        ([*DECIDED, "yes", " "], "empty"),
        ([*DECIDED, "yes", "no", "--temperature", "1"], "--temperature does not go with --question"),
        ([*DECIDED, "yes", "no", "--seed", "0"], "--seed does not go with --question"),
    ],
)
def test_wrong_use_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], named: str
) -> None:
    source = write_lines(tmp_path / "in.jsonl", [request(0)])
    assert main([str(source), *[str(tmp_path / w) if w.startswith(("in.", "out", "now")) else w for w in words]]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert named in line


@pytest.mark.parametrize("words", [["--schema", "bad.json"], ["--choice", "yes", ""]])
def test_what_no_row_can_be_asked_is_told_once_and_can_be_mended(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    (tmp_path / "bad.json").write_text('{"properties": {"age": {"type": "integer", "not": {"multipleOf": 2}}}}')
    source, out = write_lines(tmp_path / "in.csv", ["text", *"abc"]), tmp_path / "out.csv"
    command = [str(source), "-o", str(out), "--template", "{text}", *model]
    words = [str(tmp_path / word) if word.endswith("json") else word for word in words]
    assert main([*command, *words]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "no row can be asked this" in told
    assert not out.exists()
    assert main([*command, "--max-tokens", "3"]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--template", "{word}"], "--template: the file has no column 'word'; it has 'text', 'answer', 'confidence'"),
        (["--template", "{text}"], "'answer' is in the file already; give another --column"),
        (["--template", "{text}", "--column", "mood", "--question", "?", "--choice", "a", "b"], "rename it there"),
    ],
)
def test_columns_that_every_row_would_fail_for_are_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    source = write_lines(tmp_path / "in.csv", ["text,answer,confidence", "a,b,c"])
    assert main([str(source), "-o", str(tmp_path / "out.csv"), *words]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert told in line
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("piped", ["in.jsonl", "out.jsonl"])
def test_a_pipe_is_refused_before_anybody_waits_for_it(tmp_path: Path, piped: str) -> None:
    os.mkfifo(tmp_path / piped)
    flags = flag_parser("batch").parse([str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl")])
    with pytest.raises(ValueError, match=f"{piped}: it is a pipe"):
        check_files(flags)


def test_only_a_table_becomes_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_lines(tmp_path / "in.csv.gz", ["text", "a"])
    assert main([str(source), "-o", str(tmp_path / "out.csv"), "--template", "{text}"]) == 2
    assert "only rows of a .csv or .parquet file" in capsys.readouterr().err


def test_a_property_may_not_hide_the_reason_of_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "schema.json").write_text('{"properties": {"error": {"type": "string"}}}')
    source, flags = write_lines(tmp_path / "in.csv", ["text", "a"]), ["--template", "{text}", "--schema"]
    assert main([str(source), "-o", str(tmp_path / "out.csv"), *flags, str(tmp_path / "schema.json")]) == 2
    assert "a column 'error' itself" in capsys.readouterr().err


def test_a_row_engine_refuses_a_question_for_all_rows(model: list[str]) -> None:
    question = Question(Template("{text}"), {"structured_outputs": {"regex": "("}}, properties=(), column="answer")
    with pytest.raises(ValueError, match="no row can be asked this"):
        RowEngine(question, options=EngineOptions(model=model[1], kv_cache_memory=64 << 20))


def test_a_full_disk_is_said_and_the_run_goes_on_later(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_lines(tmp_path / "in.csv", ["text", *"abcde"]), tmp_path / "out.csv"
    command = [str(source), "-o", str(out), "--template", "{text}", "--max-tokens", "3", *model]
    out.symlink_to("/dev/full")
    assert main(command) == 2
    assert f"{out}: No space left" in capsys.readouterr().err
    out.unlink()
    assert main(command) == 0
    with out.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 5


LOADS_FOR_EVER = """
import sys
import torch
from openai_api.batch import batch_run, command

def load_for_ever(*_, **__):
    print("loading", flush=True)
    matrix = torch.ones(100, 100)
    while True:
        matrix @ matrix  # each without the GIL

batch_run.load_engine = load_for_ever
sys.exit(command.main(sys.argv[1:]))
"""


def test_ctrl_c_while_the_model_is_loaded_ends_it_well(model: list[str], tmp_path: Path) -> None:
    """Taken apart under a thread in torch, the interpreter would abort."""
    source = write_lines(tmp_path / "in.jsonl", [request(0)])
    command = [sys.executable, "-c", LOADS_FOR_EVER, str(source), "-o", str(tmp_path / "out.jsonl"), *model]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, "")


def killed_run(command: list[str], after_s: float, number: signal.Signals) -> int:
    process = subprocess.Popen(
        [sys.executable, "-m", "openai_api", "batch", *command], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        return process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        return process.wait(60)


def kill_until_done(model: list[str], tmp_path: Path, *, num_kills: int, num_rows: int) -> None:
    source = write_lines(tmp_path / "in.jsonl", [request(n) for n in range(num_rows)])
    undisturbed, killed = tmp_path / "undisturbed.jsonl", tmp_path / "killed.jsonl"
    assert main([str(source), "-o", str(undisturbed), *model]) == 0
    began_s = time.monotonic()
    assert killed_run([str(source), "-o", str(tmp_path / "first.jsonl"), *model], 600, signal.SIGKILL) == 0
    run_s, rng = time.monotonic() - began_s, random.Random(num_kills)
    command = [str(source), "-o", str(killed), *model]
    for _ in range(num_kills):
        number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT])
        if killed_run(command, rng.uniform(0.5, 1.0) * run_s, number) == 0:
            killed.unlink()  # it came to its end: begin anew
            killed.with_name("killed.jsonl.journal").unlink()
    assert main(command) == 0
    assert list(texts(killed)) == list(texts(undisturbed))


def test_killed_and_started_again_every_row_is_there_once(model: list[str], tmp_path: Path) -> None:
    kill_until_done(model, tmp_path, num_kills=2, num_rows=60)


@pytest.mark.soak
def test_killed_a_hundred_times_every_row_is_there_once(model: list[str], tmp_path: Path) -> None:
    kill_until_done(model, tmp_path, num_kills=100, num_rows=400)
