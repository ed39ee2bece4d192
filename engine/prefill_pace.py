"""How much prefill goes beside sequences that decode, so that a long prompt does not stop the
streams.

Owns what steps have cost of late, in seconds, and turns that into tokens. Reads no clock: whoever
runs a step measures it and tells ``observe``. Engine thread only.

Every step pays for its decodes once, whatever prefill it brings. So few long steps finish a prompt
sooner than many short ones, but they are the gaps in everybody's stream. The median gap is how fast
a stream feels, the longest is what its reader notices; both are bounded here, as multiples of a
step that only decodes. With heavy and light steps in turn the median is a light one, and the prompt
gets nearly the mean of both: where costs only add up, at 4.5 and 2.3 it takes a third longer than
without these bounds, with all steps at 2.3 it would be two thirds.

Each round begins with a step that only decodes. It measures what of the other steps is the decodes'
part, which would otherwise not be known for the minutes that a prompt may take. Beside a long
prompt it was found to be a fifth more than before, but what readers compare with is how it was
before. The number of the other steps is odd, so that of two prompts in turn none always has the
heavy ones.
"""

import math
from collections import abc, deque
from enum import Enum

from engine.batch import Batch, ScheduledSequence
from engine.sequence import Sequence

STEPS_PER_ROUND = 20  # the first only decodes, then heavy and light ones alternate; the last is light
MIN_TOKENS = 8  # of a step that prefills at all
NUM_REMEMBERED = 9  # a median of so many is moved by no odd one, and follows a change in five
# What was usual before a prompt counts no less than so much of what decodes cost now: streams grow.
LEAST_OF_NOW = 0.67
NUM_FIRST_TOKENS = 2  # of a stream: nobody is used to a pace of it yet
MAX_SHORT_TOKENS = 64  # of a prompt that is computed at once beside such streams
POSITIONS_PER_PLACE = 2_048  # attention makes a token dearer the further behind it stands


class _Step(Enum):
    """Kinds of steps that prefill. The value: the time it takes, in usual steps that only decode."""

    ALONE = math.inf  # nobody decodes
    HEAVY = 4.5
    LIGHT = 2.3


class PrefillShare:
    """What one step may prefill. Mutable: the scheduler takes from it, the sequence first in turn
    first.
    """

    def __init__(
        self, token_s: abc.Callable[[Sequence], float], seconds: float, *, min_tokens: int = MIN_TOKENS
    ) -> None:
        self._token_s = token_s
        self._seconds = self._left_s = seconds
        self._min_tokens = min_tokens

    def whole(self, seq: Sequence) -> int:
        """Tokens of ``seq`` if it gets the share for itself."""
        return max(self._min_tokens, self._num_tokens(seq, self._seconds))

    def left(self, seq: Sequence) -> int:
        """Tokens of ``seq`` that are left of it now."""
        return self.whole(seq) if self._left_s == self._seconds else self._num_tokens(seq, self._left_s)

    def take(self, seq: Sequence, num_tokens: int) -> None:
        if num_tokens > 0 and self._seconds < math.inf:
            self._left_s -= num_tokens * self._token_s(seq)

    def _num_tokens(self, seq: Sequence, seconds: float) -> int:
        """0 if what they cost is not known."""
        if seconds == math.inf:
            return seq.num_uncomputed_tokens
        return int(min(max(0.0, seconds) / self._token_s(seq), seq.num_uncomputed_tokens))


class PrefillPace:
    """Learns from ``observe``, and says by ``share`` what the next step may prefill."""

    def __init__(self) -> None:
        self._decode_s: dict[int, deque[float]] = {}  # of a step, by how many sequences decode
        self._usual_s: dict[int, deque[float]] = {}  # the same, while no prompt waits
        self._has_prompt = False
        # Of a token of prefill, by its place in the sequence: for each kind of step, since decodes
        # and prefill share some work and a long chunk more of it, and apart for sequences that ask
        # for prompt logprobs, which are dearer by far.
        self._token_s: dict[bool, dict[_Step, dict[int, deque[float]]]] = {
            with_logprobs: {step: {} for step in _Step} for with_logprobs in (False, True)
        }
        self._num_steps = 0  # of this round

    def share(self, num_decoding: int) -> PrefillShare:
        """For a step with a prompt to compute; everything while nobody decodes."""
        self._has_prompt = True
        step = self._step(num_decoding)

        def token_s(seq: Sequence) -> float:
            return self._token_cost_s(seq, step)

        decode_s = self._decoding_s(num_decoding)
        if step is _Step.ALONE:
            return PrefillShare(token_s, math.inf)
        if decode_s is None or self._num_steps >= STEPS_PER_ROUND:
            return PrefillShare(token_s, 0.0, min_tokens=0)
        return PrefillShare(token_s, self._usual_decode_s(num_decoding, decode_s) * step.value - decode_s)

    def observe(self, batch: Batch, seconds: float) -> None:
        """``batch`` ran for ``seconds``. Called before its sequences take in what it brought."""
        prefills = [item for item in batch.scheduled if not _decodes(item)]
        num_decoding = len(batch.scheduled) - len(prefills)
        if prefills:
            prefill_s = seconds - (self._decoding_s(num_decoding) or 0.0)
            self._learn(prefills, max(prefill_s, seconds / 4, 1e-9), self._step(num_decoding))
            self._num_steps += num_decoding > 0
        elif num_decoding and not any(item.draft_token_ids for item in batch.scheduled):  # guesses cost as well
            self._num_steps = 1
            _remember(self._decode_s, num_decoding, seconds)
            if not self._has_prompt:
                _remember(self._usual_s, num_decoding, seconds)
        self._has_prompt = False

    def _step(self, num_decoding: int) -> _Step:
        if num_decoding == 0:
            return _Step.ALONE
        is_heavy = self._num_steps % 2 == 1 and self._num_steps < STEPS_PER_ROUND - 1
        return _Step.HEAVY if is_heavy else _Step.LIGHT

    def _token_cost_s(self, seq: Sequence, step: _Step) -> float:
        """Of its next token, in seconds; infinite if no prefill of its kind has been seen.

        At a place not seen yet, what the nearest before it cost, in proportion to the way between
        them: that is hardly ever too little, since only attention grows with the position.
        """
        costs = self._token_s[seq.wants_prompt_logprobs]
        known = costs[step] or costs[_Step.HEAVY] or costs[_Step.LIGHT] or costs[_Step.ALONE]
        if not known:
            return math.inf
        place = seq.num_computed_tokens // POSITIONS_PER_PLACE
        nearest = max((each for each in known if each <= place), default=min(known))
        return _median_high(known[nearest]) * max(1.0, place / (nearest + 1))

    def _decoding_s(self, num_decoding: int) -> float | None:
        """Of a step in which so many decode; rather too little than too much."""
        known = self._decode_s
        if not known or num_decoding == 0:
            return None
        nearest = max((each for each in known if each <= num_decoding), default=min(known))
        return _median_low(known[nearest]) * min(1.0, num_decoding / nearest)

    def _usual_decode_s(self, num_decoding: int, now_s: float) -> float:
        if num_decoding not in self._usual_s:
            return now_s
        return min(now_s, max(_median_low(self._usual_s[num_decoding]), LEAST_OF_NOW * now_s))

    def _learn(self, prefills: abc.Sequence[ScheduledSequence], seconds: float, step: _Step) -> None:
        """All is put down to the longest chunk; from few tokens nothing is learned."""
        num_tokens = sum(item.num_scheduled_tokens for item in prefills)
        if num_tokens >= MIN_TOKENS:
            longest = max(prefills, key=lambda item: item.num_scheduled_tokens)
            costs = self._token_s[longest.seq.wants_prompt_logprobs][step]
            _remember(costs, longest.start // POSITIONS_PER_PLACE, seconds / num_tokens)


class Unpaced(PrefillPace):
    """As much prefill in every step as there is room for: the most tokens, where nobody waits for
    the next one.
    """

    def share(self, num_decoding: int) -> PrefillShare:
        return super().share(0)

    def observe(self, batch: Batch, seconds: float) -> None:
        """Nothing is to be learned."""


def num_paced(decodes: abc.Sequence[Sequence], prefills: abc.Iterable[Sequence]) -> int:
    """How many of ``decodes`` count for ``share``: none while all have just begun and every prompt is
    short.

    Requests that are sent together come a few milliseconds apart. The first has its token before
    the others are computed, and with the bounds of a long stream it would keep them out of the
    batch for ten steps.
    """
    have_just_begun = all(seq.num_output_tokens <= NUM_FIRST_TOKENS for seq in decodes)
    are_short = all(seq.num_uncomputed_tokens <= MAX_SHORT_TOKENS for seq in prefills)
    return 0 if have_just_begun and are_short else len(decodes)


def _decodes(item: ScheduledSequence) -> bool:
    """As the scheduler counts, the drafts behind it aside."""
    return item.seq.decodes


def _remember(recent: dict[int, deque[float]], key: int, seconds: float) -> None:
    if key not in recent:
        recent[key] = deque(maxlen=NUM_REMEMBERED)
    recent[key].append(seconds)


def _median_low(values: abc.Collection[float]) -> float:
    """As ``statistics`` has it, which takes 3 ms of every start to import."""
    return sorted(values)[(len(values) - 1) // 2]


def _median_high(values: abc.Collection[float]) -> float:
    return sorted(values)[len(values) // 2]
