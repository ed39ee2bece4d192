"""Who may join the queue: bounds in sequences and in prompt tokens, and a fair part of them for
everybody.
"""

import random

import pytest

from engine.admission import Amount, WaitingRoom
from engine.errors import QueueFullError


def refusal(room: WaitingRoom, name: str, *, mean_request_s: float = 1.0) -> QueueFullError | None:
    try:
        room.check(name, mean_request_s=mean_request_s)
    except QueueFullError as error:
        return error
    return None


def fill(room: WaitingRoom, name: str, amount: Amount) -> int:
    """Enter until it is refused; how often that went well."""
    for num in range(100_000):
        if refusal(room, name):
            return num
        room.enter(name, amount)
    raise AssertionError("never refused")


def test_one_caller_alone_gets_half_and_the_next_ones_a_part_of_the_rest() -> None:
    room = WaitingRoom(Amount(2_048, 1 << 20))
    assert [fill(room, name, Amount(1, 10)) for name in "abc"] == [1_024, 512, 256]
    assert room.total == Amount(1_792, 17_920)
    assert refusal(room, "newcomer") is None


def test_the_room_is_never_overfull_but_by_one_request_of_each_caller() -> None:
    room = WaitingRoom(Amount(64, 1 << 20))
    for number in range(100):
        fill(room, f"caller {number}", Amount(1, 1))
    assert room.total.num_sequences == 64
    error = refusal(room, "late")
    assert error is not None
    assert str(error).startswith("64 sequences wait already, 0 of them yours; at most 64 may")


def test_prompt_tokens_are_bounded_as_well() -> None:
    room = WaitingRoom(Amount(2_048, 100_000))
    assert fill(room, "a", Amount(1, 10_000)) == 5
    error = refusal(room, "a")
    assert error is not None
    assert "50000 prompt tokens wait already, 50000 of them yours; at most 100000 may" in str(error)
    assert refusal(room, "b") is None


def test_a_large_request_may_enter_an_empty_room() -> None:
    room = WaitingRoom(Amount(8, 1_000))
    assert refusal(room, "a") is None
    room.enter("a", Amount(128, 30_000))
    assert refusal(room, "a")
    assert refusal(room, "b")
    room.leave("a", Amount(128, 30_000))
    assert refusal(room, "a") is None


def test_how_long_to_wait_is_told_from_what_waits() -> None:
    room = WaitingRoom(Amount(40, 1_000))
    room.enter("a", Amount(20, 1))
    waits = {mean: refusal(room, "a", mean_request_s=mean) for mean in (0.001, 0.5, 100.0)}
    assert [error.retry_after_s for error in waits.values() if error] == [1, 10, 120]


def test_what_leaves_is_forgotten() -> None:
    """A million names must not stay."""
    room, rng = WaitingRoom(Amount(1_000, 10_000)), random.Random(1)
    inside: list[tuple[str, Amount]] = []
    for number in range(2_000):
        if inside and rng.random() < 0.5:
            room.leave(*inside.pop(rng.randrange(len(inside))))
        else:
            inside.append((f"caller {number % 300}", Amount(rng.randint(1, 4), rng.randint(0, 9))))
            room.enter(*inside[-1])
        assert room.total == sum((amount for _, amount in inside), Amount())
        assert room._of_caller.keys() == {name for name, _ in inside}
    for name, amount in inside:
        room.leave(name, amount)
    assert (room.total, room._of_caller) == (Amount(), {})


@pytest.mark.parametrize("num_waiting", [10, 1_900])
def test_the_order_of_the_bounds_in_the_text(num_waiting: int) -> None:
    """The sequences first: that is what most callers know they have sent."""
    room = WaitingRoom(Amount(2_000, 10))
    room.enter("a", Amount(num_waiting, 10))
    error = refusal(room, "a")
    assert error is not None
    assert ("sequences" in str(error)) == (num_waiting == 1_900)
