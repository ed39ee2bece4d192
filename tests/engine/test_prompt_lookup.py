"""Guesses at the next tokens: which ones, how many, and what they may cost."""

import random
from collections.abc import Callable, Iterator

import pytest

from engine.prompt_lookup import (
    EARNED_PER_ACCEPTED,
    EARNED_PER_STEP,
    FIRST_ALLOWANCE,
    MAX_DRAFTS,
    MAX_MATCH,
    MAX_PLACES,
    Drafts,
    PromptLookup,
)


def naive_proposal(said: list[int], prompt: list[int], prediction: list[int]) -> Drafts:
    """The definition, without an index: the longest match among the latest places of the last two tokens."""
    best_match, best = 0, Drafts()
    before = prompt[-MAX_MATCH:] if prediction else []
    for text, start, is_prediction in ((before + prediction, len(before), True), (said, 2, False)):
        ends = [end for end in range(max(2, start), len(text)) if text[end - 2 : end] == said[-2:]]
        for end in ends[::-1][:MAX_PLACES]:
            match = 0
            while match < min(MAX_MATCH, end, len(said)) and text[end - 1 - match] == said[-1 - match]:
                match += 1
            if match > best_match:
                followers = text[end : end + MAX_DRAFTS]
                while not is_prediction and len(followers) < MAX_DRAFTS:
                    followers += text[end:]
                best_match, best = match, Drafts(tuple(followers[: min(match, MAX_DRAFTS)]), is_prediction)
    return best


@pytest.mark.parametrize("trial", range(20))
def test_equals_the_plain_definition(trial: int) -> None:
    """Random texts of few letters with copied parts, growing by several tokens at a time."""
    rng = random.Random(trial)
    letters = rng.choice((2, 4, 30))
    prompt = [rng.randrange(letters) for _ in range(rng.choice((1, 2, 5, 80)))]
    prediction = [rng.randrange(letters) for _ in range(rng.choice((0, 1, 40)))]
    said = prompt.copy()
    lookup = trusted(PromptLookup(said, prediction))
    for _ in range(60):
        if len(said) > 1:
            assert lookup.propose(MAX_DRAFTS) == naive_proposal(said, prompt, prediction)
        if len(said) > 3 and rng.random() < 0.5:
            start = rng.randrange(len(said))
            said += said[start : start + rng.randint(1, 30)]
        else:
            said += [rng.randrange(letters) for _ in range(rng.randint(1, 5))]


def trusted(lookup: PromptLookup) -> PromptLookup:
    """One that has guessed well so far, and may stake a whole draft."""
    lookup.settle(num_drafts=8, num_accepted=8)
    return lookup


class CountedReads(list[int]):
    num_reads = 0

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        found = super().__getitem__(place)
        self.num_reads += len(found) if isinstance(place, slice) else 1
        return found


def test_the_work_of_a_step_does_not_grow_with_the_text() -> None:
    text = CountedReads([1] * 2_000)
    lookup = trusted(PromptLookup(text))
    lookup.propose(MAX_DRAFTS)
    assert text.num_reads < 3 * 2_000, "each token of the prompt is read once, as part of two pairs"
    before, text.num_reads = text.num_reads, 0
    for _ in range(500):
        text.append(1)
        lookup.propose(MAX_DRAFTS)
    assert text.num_reads / 500 < 200 < before


@pytest.mark.parametrize("most", [0, 1, 4, 15, 100])
def test_no_more_drafts_than_asked_for(most: int) -> None:
    text = list(range(50)) * 2
    assert trusted(PromptLookup(text)).propose(most).token_ids == tuple(range(min(most, MAX_DRAFTS)))


def test_as_many_drafts_as_the_match_is_long() -> None:
    for length in (2, 3, 7):
        text = [*range(100, 150), *range(length), *range(50, 80), *range(length)]
        assert len(trusted(PromptLookup(text)).propose(MAX_DRAFTS).token_ids) == length


def test_one_common_token_is_no_match() -> None:
    assert PromptLookup([1, 2, 3, 4, 2]).propose(MAX_DRAFTS) == Drafts()
    assert PromptLookup([1]).propose(MAX_DRAFTS) == Drafts()


def test_a_loop_is_copied_over_its_own_end() -> None:
    assert trusted(PromptLookup([9, 7, 8] + [1, 2, 3] * 6)).propose(MAX_DRAFTS).token_ids == (1, 2, 3) * 5


def test_a_prediction_is_followed_from_its_beginning() -> None:
    """Nothing is said yet, or only what was predicted."""
    for num_said in (0, 1, 5):
        said = [5, 6, 7, *range(100, 100 + num_said)]
        lookup = trusted(PromptLookup([5, 6, 7], range(100, 130)))
        lookup = continued(lookup, said)
        drafts = lookup.propose(MAX_DRAFTS)
        assert drafts.are_predicted
        assert drafts.token_ids == tuple(range(100 + num_said, 103 + 2 * num_said))


def continued(lookup: PromptLookup, said: list[int]) -> PromptLookup:
    own = lookup._own.token_ids
    own += said[len(own) :]
    return lookup


def test_a_prediction_is_found_again_after_a_difference_and_ends_where_it_ends() -> None:
    lookup = continued(PromptLookup([5, 6, 7], list(range(100, 110))), [5, 6, 7, 100, 101, 1, 2, 3, 105, 106])
    assert lookup.propose(MAX_DRAFTS) == Drafts((107, 108), are_predicted=True)
    lookup = continued(lookup, [*lookup._own.token_ids, 107, 108, 109])
    assert lookup.propose(MAX_DRAFTS) == Drafts(), "the last tokens of the prediction are followed by nothing"


def test_of_equal_matches_the_prediction_is_taken_and_of_unequal_ones_the_longer() -> None:
    prediction = [5, 10, 11, 77, 78]
    equal = continued(PromptLookup([1, 2], prediction), [1, 2, 5, 10, 11, 12, 13, 14, 5, 10, 11])
    assert equal.propose(9) == Drafts((77, 78), are_predicted=True)
    longer = continued(PromptLookup([1, 2], prediction), [1, 2, 4, 5, 10, 11, 12, 13, 14, 4, 5, 10, 11])
    assert longer.propose(9) == Drafts((12, 13, 14, 4))


# What drafts may cost: a text is told token by token, as a step would.


def tell(lookup: PromptLookup, said: list[int], text: list[int]) -> Iterator[tuple[int, int]]:
    """Drafts and accepted drafts of each step until all of ``text`` is said."""
    position = 0
    while position < len(text):
        drafts = lookup.propose(len(text) - position - 1).token_ids
        num_accepted = 0
        while num_accepted < len(drafts) and drafts[num_accepted] == text[position + num_accepted]:
            num_accepted += 1
        said += text[position : position + num_accepted + 1]
        position += num_accepted + 1
        lookup.settle(num_drafts=len(drafts), num_accepted=num_accepted)
        yield len(drafts), num_accepted


def steps_of(prompt: list[int], text: list[int], prediction: list[int] | None = None) -> list[tuple[int, int]]:
    said = prompt.copy()
    return list(tell(PromptLookup(said, prediction or []), said, text))


def tempting(num_tokens: int) -> list[int]:
    """The same two tokens again and again, and after them always another."""
    return [token for i in range(num_tokens // 3) for token in (1, 2, 1_000 + i)]


def shuffled_words(num_tokens: int) -> list[int]:
    """Common words in random order: pairs repeat, and mean nothing."""
    rng = random.Random(1)
    return [min(rng.randrange(300) for _ in range(3)) for _ in range(num_tokens)]


@pytest.mark.parametrize("make", [tempting, shuffled_words, lambda n: list(range(n))], ids=["tempting", "words", "new"])
def test_wrong_drafts_are_at_most_3_percent_of_the_rows(make: Callable[[int], list[int]]) -> None:
    steps = steps_of([1, 2], make(3_000))
    num_rejected = sum(num_drafts - num_accepted for num_drafts, num_accepted in steps)
    num_accepted = sum(num_accepted for _, num_accepted in steps)
    assert num_rejected - EARNED_PER_ACCEPTED * num_accepted <= FIRST_ALLOWANCE + EARNED_PER_STEP * len(steps)
    num_rows = len(steps) + num_rejected
    assert num_rejected <= 0.03 * num_rows + num_accepted, "each accepted draft saves a step, which is a row as well"


def test_a_text_that_never_repeats_has_no_drafts() -> None:
    assert steps_of([], list(range(3_000))) == [(0, 0)] * 3_000


def test_copying_gets_long_drafts() -> None:
    """Where the copy begins is found out by its first two tokens; then the drafts grow with the match."""
    text = list(range(500, 900))
    steps = steps_of([*text, 1, 2, 3], text)
    assert [num_drafts for num_drafts, _ in steps[:6]] == [0, 0, 2, 5, 11, 15]
    assert len(text) / len(steps) > 12


def test_copying_gets_long_drafts_soon_after_a_text_that_did_not_repeat() -> None:
    text = list(range(5_000, 5_400))
    steps = steps_of(text, [*tempting(3_000), *text])
    assert len(steps) < 2_950 + 80 + 400 / 12


def test_half_of_the_allowance_is_staked_at_most() -> None:
    """So one bad guess leaves something for the next, which need not wait for steps without any."""
    steps = steps_of([1, 2], tempting(60))
    assert [num_drafts for num_drafts, _ in steps if num_drafts][:5] == [2, 2, 2, 1, 1]


def test_a_prediction_is_found_behind_words_that_were_not_predicted() -> None:
    text = list(range(1_000, 1_200))
    steps = steps_of([1, 2, 3], [7, 8, 9, 10, 11, 12, *text], text)
    assert len(steps) < 6 + 25


def test_a_prediction_with_a_change_in_every_50_tokens() -> None:
    text = list(range(1_000, 1_500))
    changed = [7 if i % 50 == 49 else token for i, token in enumerate(text)]
    steps = steps_of([1, 2, 3], changed, text)
    assert len(changed) / len(steps) > 6
