"""How often the same fault is told."""

import logging
from collections.abc import Callable

from openai_api.logs import RepeatFilter


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def record_of(
    message: str = "fault",
    *,
    level: int = logging.WARNING,
    name: str = "a",
    error: Exception | None = None,
    **fields: object,
) -> logging.LogRecord:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord(name, level, "", 0, message, (), exc_info)
    record.fields = fields
    return record


def raised(action: Callable[[], object]) -> Exception:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError


def test_the_first_then_one_in_a_while_with_a_count() -> None:
    clock = Clock()
    repeats = RepeatFilter(interval_s=10, clock=clock)
    assert [repeats.filter(record_of()) for _ in range(100)] == [True] + [False] * 99
    clock.now_s += 10
    record = record_of(request_id="x")
    assert repeats.filter(record)
    assert record.__dict__["fields"] == {"request_id": "x", "left_out": 99}
    clock.now_s += 10
    record = record_of()
    assert repeats.filter(record)
    assert record.__dict__["fields"] == {}


def test_faults_that_differ_are_all_told() -> None:
    repeats = RepeatFilter(interval_s=10, clock=Clock())
    errors = [raised(lambda: 1 / 0), raised(lambda: [][0])]
    records = [record_of(), record_of("other"), record_of(name="b"), record_of(at=["x.py:1"]), record_of(at=["x.py:2"])]
    records += [record_of(error=error) for error in errors]
    assert all(repeats.filter(record) for record in records)
    assert not any(repeats.filter(record) for record in records)


def test_only_the_first_line_tells_faults_apart() -> None:
    repeats = RepeatFilter(interval_s=10, clock=Clock())
    assert [repeats.filter(record_of(f"out of files\nsocket: {number}")) for number in range(3)] == [True, False, False]


def test_records_that_are_no_fault_all_pass() -> None:
    repeats = RepeatFilter(interval_s=10, clock=Clock())
    assert all(repeats.filter(record_of("request", level=logging.INFO)) for _ in range(100))


def test_faults_without_number_take_bounded_memory() -> None:
    repeats = RepeatFilter(interval_s=10, clock=Clock())
    assert all(repeats.filter(record_of(str(number))) for number in range(10_000))
    assert len(repeats._told) <= RepeatFilter.MAX_FAULTS
