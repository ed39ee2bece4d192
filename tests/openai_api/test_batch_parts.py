"""The parts of a batch: sources, tasks, the order of answers, the journal and the outputs."""

import asyncio
import csv
import json
import random
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from openai_api.batch import sources
from openai_api.batch.answering import CHAT_URL
from openai_api.batch.journal import Journal, Mark
from openai_api.batch.line_task import LineTask
from openai_api.batch.outputs import Output
from openai_api.batch.parts import Part, join
from openai_api.batch.row import BadRow, Columns, Record, RowOutcome, RowRequest
from openai_api.batch.runner import AHEAD, in_order
from openai_api.batch.sources import open_source
from openai_api.batch.template_task import Template, TemplateTask

URL = "/v1/completions"
LINE = {"custom_id": "a", "method": "POST", "url": URL, "body": {"prompt": "x"}}


def rows_of(path: Path) -> list[Columns | BadRow]:
    with closing(open_source(path)) as source:
        return list(source.rows())


def test_a_line_that_cannot_be_read_is_one_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", 64)
    path = tmp_path / "rows.jsonl"
    lines = [b'\xef\xbb\xbf{"n":1}', b"", b"[1]", b'{"n":', b'{"n":"\xff"}', b'{"n":"' + b"x" * 200 + b'"}', b'{"n":7}']
    path.write_bytes(b"\r\n".join(lines))
    told = [row.why[:6] if isinstance(row, BadRow) else row["n"] for row in rows_of(path)]
    assert told == [1, "Line 3", "Line 4", "Line 5", "Line 6", 7]


def test_rows_of_csv_have_the_header_s_columns_whatever_is_in_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbfid,text\n1,"two\nlines, ""quoted"""\n\n2\n3,\xff\n4,last')
    found = rows_of(path)
    assert found[0] == {"id": "1", "text": 'two\nlines, "quoted"'}
    assert found[-1] == {"id": "4", "text": "last"}
    assert found[1:3] == [BadRow("Line 5 has 1 cells, the header 2."), BadRow("Line 6 is not UTF-8.")]


def test_a_csv_file_that_ends_within_quotation_marks_is_told(tmp_path: Path) -> None:
    """All rows behind the mark would be one cell, and nobody would know."""
    path = tmp_path / "rows.csv"
    path.write_bytes(b'id,text\n1,"a"\n2,"never closed\n3,c\n4,d\n')
    good, bad = rows_of(path)
    assert good == {"id": "1", "text": "a"}
    assert isinstance(bad, BadRow)
    assert "line 3 is never closed" in bad.why


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (b"", "the names of its columns"),
        (b"a,a\n1,2\n", "each once"),
        (b'a,"b\n1,2\n', "never closed"),
        ("a,b\n1,2\n".encode("utf-16"), "not UTF-8"),
        (b"a," + b"b" * 100 + b"\n1,2\n", "no CSV"),
    ],
)
def test_a_csv_file_without_a_header_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: bytes, named: str
) -> None:
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", 64)
    path = tmp_path / "rows.csv"
    path.write_bytes(header)
    with pytest.raises(ValueError, match=f"rows.csv: .*{named}"):
        open_source(path)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pip install 'gemma3-270m-server[parquet]'")
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1junk")
    with pytest.raises(ValueError, match=r"rows\.parquet: "):
        open_source(path)


def test_a_parquet_file_that_is_damaged_further_on_is_named(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pip install 'gemma3-270m-server[parquet]'")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    texts = [random.Random(n).randbytes(64).hex() for n in range(2000)]
    parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=1000, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 1000] = bytes(1000)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"rows\.parquet: "):
        rows_of(path)


def test_parquet_rows_are_those_of_the_table(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    path, numbers = tmp_path / "rows.parquet", list(range(1000))
    parquet.write_table(pyarrow.table({"n": numbers, "text": [str(n) for n in numbers]}), path, row_group_size=300)
    assert rows_of(path) == [{"n": n, "text": str(n)} for n in numbers]


@pytest.mark.parametrize("text", ["no column", "{", "}", "{}", "{a.b}", "{a[0]}", "{a!r}", "{a:>9}"])
def test_a_template_is_text_and_columns_and_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match="--template"):
        Template(text)


def test_a_template_is_filled_in_once() -> None:
    template = Template("{{{a}}}: {b} {a}")
    assert template.names == ("a", "b")
    assert template.fill({"a": "{b}", "b": [1, "\u00e9"]}) == '{{b}}: [1, "\u00e9"] {b}'
    assert template.fill({"a": 1}) == BadRow("The row has no column 'b'.")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"custom_id": None}, "custom_id"),
        ({"custom_id": ""}, "custom_id"),
        ({"custom_id": "x" * 513}, "custom_id"),
        ({"method": "GET"}, "method"),
        ({"url": "/v1/nothing"}, URL),
        ({"url": ["/v1/completions"]}, URL),
        ({"more": 1}, "nothing else"),
    ],
)
def test_a_wrong_line_is_told_what_is_allowed(change: Columns, named: str) -> None:
    task = LineTask([URL])
    assert task.request(LINE) == RowRequest(URL, LINE["body"])
    bad = task.request({**LINE, **change})
    assert isinstance(bad, BadRow)
    assert named in bad.why
    record = task.record({**LINE, **change}, bad)
    assert record.is_failed
    assert record.members["response"] is None


def template_task(**fields: object) -> TemplateTask:
    settings = {"url": CHAT_URL, "settings": {}, "properties": (), "column": "answer", **fields}
    return TemplateTask(template=Template("{text}"), **settings)  # type: ignore[arg-type]


def chat_outcome(text: str, finish_reason: str = "stop") -> RowOutcome:
    choice = {"message": {"content": text}, "finish_reason": finish_reason}
    return RowOutcome(200, {"choices": [choice]}, 5)


def test_an_answer_becomes_columns_beside_the_row_s_own() -> None:
    row = {"text": "Ann is 7"}
    assert template_task().record(row, chat_outcome("yes")) == Record({**row, "answer": "yes"}, num_tokens=5)
    fields = template_task(properties=("name", "age"))
    assert fields.record(row, chat_outcome('{"name":"Ann","age":7}')).members == {**row, "name": "Ann", "age": 7}
    cut = fields.record(row, chat_outcome('{"name":"A', "length"))
    assert cut.is_failed
    assert "--max-tokens" in cut.members["error"]
    assert isinstance(template_task().request({**row, "answer": 1}), BadRow)


def test_a_piece_of_a_choice_is_no_answer() -> None:
    row, cut = {"text": "Ann is 7"}, chat_outcome("ye", "length")
    assert template_task().record(row, cut).members["answer"] == "ye"
    told = template_task(settings={"structured_outputs": {"choice": ["yes", "no"]}}).record(row, cut)
    assert told.is_failed
    assert "--max-tokens" in told.members["error"]
    assert "answer" not in told.members


@pytest.mark.parametrize("seed", range(5))
def test_answers_come_in_the_order_of_rows_and_few_are_on_their_way(seed: int) -> None:
    rng, num_at_once = random.Random(seed), 3
    num_running = most_running = num_read = 0

    def rows() -> list[int]:
        return list(range(300))

    def reading() -> "object":
        nonlocal num_read
        for row in rows():
            num_read += 1
            yield row

    async def answer(row: int) -> int:
        nonlocal num_running, most_running
        num_running += 1
        most_running = max(most_running, num_running)
        for _ in range(rng.choice([0, 1, 3, 90])):
            await asyncio.sleep(0)
        num_running -= 1
        return row

    async def collect() -> list[int]:
        told = []
        async with aclosing(in_order(reading(), answer, num_at_once=num_at_once)) as answers:  # type: ignore[arg-type]
            async for each in answers:
                told.append(each)
                assert num_read - len(told) <= num_at_once * AHEAD
        return told

    assert asyncio.run(collect()) == rows()
    assert most_running == num_at_once


def test_when_one_raises_the_others_are_cancelled() -> None:
    ended = []

    async def answer(row: int) -> int:
        if row == 2:
            raise ValueError(row)
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(row)
        return row

    async def collect() -> None:
        async with aclosing(in_order([2, 3, 4], answer, num_at_once=3)) as answers:
            async for _ in answers:
                pass

    with pytest.raises(ValueError, match="2"):
        asyncio.run(collect())
    assert sorted(ended) == [3, 4]


def test_two_runs_never_write_one_output(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with closing(Journal(path)), pytest.raises(ValueError, match="another run"):
        Journal(path)
    Journal(path).close()


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"somebody's notes, and more than a hundred bytes of them" * 9)
    with pytest.raises(ValueError, match="no journal"):
        Journal(path)


def test_another_question_does_not_go_on(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal")) as journal:
        journal.begin({"--template": "a"}, has_output=False)
        journal.begin({"--template": "a", "--seed": 1}, has_output=False)
        journal.begin({"--template": "a", "--seed": 1}, has_output=True)
        with pytest.raises(ValueError, match="another --seed;"):
            journal.begin({"--template": "a"}, has_output=True)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("tail", [b"", b"x", b'{"n":', b'3,"half\n'])
def test_what_stands_behind_the_mark_is_written_anew(tmp_path: Path, suffix: str, tail: bytes) -> None:
    """As after a kill: some bytes more than the journal knows of."""
    path = tmp_path / f"out{suffix}"
    records = [Record({"n": n, "text": f'"{n},\n\u00e9'}, is_failed=n % 2 == 1) for n in range(6)]
    with closing(Journal(tmp_path / "journal")) as journal:
        output = Output(path, journal, columns=("n", "text"))
        for record in records[:3]:
            output.add(record)
        output.save()
        output.close()
        with path.open("ab") as file:
            file.write(tail)
        output = Output(path, journal, columns=("n", "text"))
        assert (output.mark.num_rows, output.mark.num_failed) == (3, 1)
        for record in records[3:]:
            output.add(record)
        output.save()
        output.close()
    if suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as text:
            assert list(csv.DictReader(text)) == [
                {"n": str(r.members["n"]), "text": r.members["text"]} for r in records
            ]
    else:
        assert [json.loads(line) for line in path.read_text().splitlines()] == [dict(r.members) for r in records]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_killed_before_its_first_mark_an_output_begins_anew(tmp_path: Path, suffix: str) -> None:
    """Its bytes are in the file, and the journal does not say so yet."""
    path, record = tmp_path / f"out{suffix}", Record({"n": 1})
    with closing(Journal(tmp_path / "journal")) as journal:
        for _ in range(2):
            output = Output(path, journal, columns=("n",))
            assert output.mark.num_rows == 0
            output._file.write(b"half a row")
            output.close()
            assert not journal.has_output
        output = Output(path, journal, columns=("n",))
        output.add(record)
        output.save()
        output.close()
        assert journal.has_output
    assert path.read_bytes() == (b"n\n1\n" if suffix == ".csv" else b'{"n":1}\n')


def test_somebody_s_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("mine\n")
    with closing(Journal(tmp_path / "journal")) as journal, pytest.raises(ValueError, match="no batch has begun"):
        Output(path, journal, columns=())
    assert path.read_text() == "mine\n"


def test_an_output_that_has_lost_rows_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with closing(Journal(tmp_path / "journal")) as journal:
        journal.set_mark(Mark(3, 100, 0))
        path.write_text("{}\n")
        with pytest.raises(ValueError, match="shorter"):
            Output(path, journal, columns=())


def test_a_part_that_was_computed_twice_counts_once(tmp_path: Path) -> None:
    """Drawn anew without a seed, so that another number of rows failed."""
    names = [Part(0, 2, 0).name, Part(2, 2, 0).name, Part(2, 2, 1).name, Part(4, 1, 1).name]
    paths = [tmp_path / name for name in names]
    for number, path in enumerate(paths):
        path.write_text(f"{number}\n" * Part.of(path).num_rows)
    output = tmp_path / "out.jsonl"
    assert join(paths, output, ()) == Mark(5, 10, 1)
    assert output.read_text() == "0\n0\n1\n1\n3\n"
