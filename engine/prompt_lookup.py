"""Guesses at the next tokens of a sequence, looked up in its own text and in what its request predicted.

Finds earlier places where the last two tokens occur, and proposes the tokens that followed there: as many as the number
of preceding tokens that also match, since a long match is rarely wrong and a short one often. Owns the index of one
sequence and what drafts may cost it; knows nothing of models, steps or other sequences. Engine thread only.

A wrong draft is a row computed for nothing. Each sequence has an allowance of such rows: it starts with a few, gets
``EARNED_PER_STEP`` with every step and ``EARNED_PER_ACCEPTED`` for every draft that came true, which saved a step; a wrong one
takes 1, and no more than half is staked at a time. So a text where nothing comes true has about one row in 50 for nothing, and
soon after the first drafts come true they are as long as they get. The numbers are measured: docs/decisions.md.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

MAX_DRAFTS = 15  # 16 rows in a step
MAX_MATCH = 16
MAX_PLACES = 8  # where the last two tokens stand, latest first

FIRST_ALLOWANCE = 8
MAX_ALLOWANCE = 2 * MAX_DRAFTS
EARNED_PER_STEP = 0.02
EARNED_PER_ACCEPTED = 4


@dataclass(frozen=True, slots=True)
class Drafts:
    """``are_predicted``: they come from the request's prediction."""

    token_ids: tuple[int, ...] = ()
    are_predicted: bool = False


class PairIndex:
    """Where any two neighbouring tokens stand in a text that grows. Each token is read once, in constant time.

    A pair is found by its end, the position after it: those of one pair are a chain, latest first.
    """

    def __init__(self, token_ids: list[int]) -> None:
        self.token_ids = token_ids
        self._latest: dict[tuple[int, int], int] = {}
        self._earlier = [0, 0]  # by end: the end of the same pair before; no pair ends at 0 or 1

    def catch_up(self) -> None:
        """Read what was appended to the text since the last time."""
        for end in range(len(self._earlier), len(self.token_ids) + 1):
            pair = (self.token_ids[end - 2], self.token_ids[end - 1])
            self._earlier.append(self._latest.get(pair, 0))
            self._latest[pair] = end

    def ends(self, pair: tuple[int, int]) -> Iterator[int]:
        end = self._latest.get(pair, 0)
        while end:
            yield end
            end = self._earlier[end]


@dataclass(frozen=True, slots=True)
class _Place:
    """What follows at ``end`` in a text may follow now too: the ``match`` tokens before it are the last ones said."""

    index: PairIndex
    end: int
    match: int


class PromptLookup:
    """``token_ids``, prompt and output of one sequence, may only be appended to."""

    def __init__(self, token_ids: list[int], prediction: Sequence[int] = ()) -> None:
        self._own = PairIndex(token_ids)
        # The prompt's end goes before the prediction, so that the beginning of the output matches like any other place.
        self._prediction_start = min(MAX_MATCH, len(token_ids))
        self._predicted = PairIndex([*token_ids[-MAX_MATCH:], *prediction] if prediction else [])
        self._allowance: float = FIRST_ALLOWANCE

    def propose(self, max_drafts: int) -> Drafts:
        """Up to ``max_drafts`` guesses at what follows; none where nothing matches or the allowance is spent."""
        num_allowed = min(max_drafts, MAX_DRAFTS, int((self._allowance + 1) / 2))
        if num_allowed < 1 or len(self._own.token_ids) < 2:
            return Drafts()
        place = self._best_place()
        if place is None:
            return Drafts()
        followers = place.index.token_ids[place.end : place.end + num_allowed]
        if place.index is self._own:  # what repeats itself may go on repeating: it is copied over its own end
            followers = list(islice(cycle(followers), num_allowed))
        return Drafts(tuple(followers[: place.match]), are_predicted=place.index is self._predicted)

    def settle(self, *, num_drafts: int, num_accepted: int) -> None:
        """A step is done, with drafts or without."""
        earned = EARNED_PER_STEP + EARNED_PER_ACCEPTED * num_accepted
        self._allowance = min(MAX_ALLOWANCE, self._allowance + earned - (num_drafts - num_accepted))

    def _best_place(self) -> _Place | None:
        """The first of those with the longest match: of equal ones the prediction's, and the latest."""
        best = None
        for place in self._places():
            if best is None or place.match > best.match:
                best = place
            if best.match == MAX_MATCH:
                break
        return best

    def _places(self) -> Iterator[_Place]:
        """Where the last two tokens stand and something follows."""
        said = self._own.token_ids
        pair, last = (said[-2], said[-1]), said[: -MAX_MATCH - 1 : -1]
        for index, start in ((self._predicted, self._prediction_start), (self._own, 0)):
            index.catch_up()
            ends = (end for end in index.ends(pair) if start <= end < len(index.token_ids))
            for end in islice(ends, MAX_PLACES):
                before = index.token_ids[max(0, end - MAX_MATCH) : end]
                yield _Place(index, end, _num_equal(reversed(before), last))


def _num_equal(one: Iterable[int], other: Iterable[int]) -> int:
    """How many items both begin with."""
    num_equal = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        num_equal += 1
    return num_equal
