"""The work of one step: which tokens of which sequences are computed, and which rows choose a token.

Plain values that the scheduler makes and a runner reads; knows neither why they were chosen nor how they are computed.
Engine thread only.
"""

from collections import Counter
from dataclasses import dataclass

from engine.random_numbers import uniform
from engine.sampling_params import SamplingParams
from engine.seen_tokens import SeenTokens
from engine.sequence import Sequence
from engine.token_mask import intersection


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """A row whose logits choose the next token of ``seq``, as if ``draft_token_ids`` were already its output.

    Everything that sampling asks of a sequence is asked here, drafts included: they are kept only if this comes true.
    """

    seq: Sequence
    draft_token_ids: tuple[int, ...] = ()
    grammar_mask: bytes | None = None  # the ids that the grammar allows here, as ``GrammarState.mask`` has them

    @property
    def params(self) -> SamplingParams:
        return self.seq.params

    @property
    def num_tokens(self) -> int:
        """Also the position of the token to choose."""
        return self.seq.num_tokens + len(self.draft_token_ids)

    @property
    def num_output_tokens(self) -> int:
        return self.seq.num_output_tokens + len(self.draft_token_ids)

    @property
    def uniform(self) -> float:
        """The random number of the token to choose, in [0, 1)."""
        assert self.params.seed is not None, "the engine draws a seed for requests without one"
        return uniform(self.params.seed, self.num_tokens, self.seq.index)

    @property
    def allowed_mask(self) -> bytes | None:
        """The ids that can be chosen, as bits (``token_mask.py``), by the request and by its grammar; ``None``: all."""
        mask, grammar_mask = self.params.allowed_mask, self.grammar_mask
        if mask is None or grammar_mask is None:
            return grammar_mask if mask is None else mask
        return intersection(mask, grammar_mask)

    @property
    def token_ids(self) -> list[int]:
        return [*self.seq.token_ids, *self.draft_token_ids]

    @property
    def output_token_ids(self) -> list[int]:
        return [*self.seq.output_token_ids, *self.draft_token_ids]

    @property
    def seen_token_ids(self) -> list[int]:
        """The distinct ids of ``token_ids``."""
        return list(self._seen().token_ids | dict.fromkeys(self.draft_token_ids))

    @property
    def output_counts(self) -> list[tuple[int, int]]:
        """The distinct ids of ``output_token_ids``, and how often each is there."""
        counts = self._seen().output_counts
        return list((counts + Counter(self.draft_token_ids) if self.draft_token_ids else counts).items())

    def _seen(self) -> SeenTokens:
        self.seq.seen.follow(self.seq.token_ids, self.seq.num_prompt_tokens)
        return self.seq.seen


@dataclass(frozen=True, slots=True)
class ScheduledSequence:
    """``seq`` computes its tokens ``[start, end)`` in this step, and ``draft_token_ids`` behind them.

    Drafts are guesses at the next tokens, only there if the step samples: the row of token ``end - 1`` chooses the next
    token, each draft's row the one after it. Valid until ``Scheduler.update`` moves the start.
    """

    seq: Sequence
    num_scheduled_tokens: int
    draft_token_ids: tuple[int, ...] = ()
    has_predicted_drafts: bool = False  # they come from the request's prediction
    grammar_masks: tuple[bytes, ...] = ()  # of each sampling row, if the output must follow a grammar

    @property
    def start(self) -> int:
        return self.seq.num_computed_tokens

    @property
    def end(self) -> int:
        return self.seq.num_computed_tokens + self.num_scheduled_tokens

    @property
    def num_rows(self) -> int:
        """The rows of this sequence in the step stand at the positions ``[start, start + num_rows)``."""
        return self.num_scheduled_tokens + len(self.draft_token_ids)

    @property
    def row_token_ids(self) -> list[int]:
        return [*self.seq.token_ids[self.start : self.end], *self.draft_token_ids]

    @property
    def samples(self) -> bool:
        """Whether the step chooses new tokens: only when no known token is left to compute."""
        return self.end == self.seq.num_tokens and not self.seq.chooses_no_more

    @property
    def num_sampling_rows(self) -> int:
        return 1 + len(self.draft_token_ids) if self.samples else 0

    @property
    def sampling_rows(self) -> list[SamplingRow]:
        """The last ``1 + len(draft_token_ids)`` rows, or none."""
        drafts, masks = self.draft_token_ids, self.grammar_masks
        return [
            SamplingRow(self.seq, drafts[:num_accepted], masks[num_accepted] if masks else None)
            for num_accepted in range(self.num_sampling_rows)
        ]

    @property
    def prompt_targets(self) -> list[int]:
        """The prompt's tokens after each of this step's first rows, if their log probabilities are asked for."""
        if not self.seq.wants_prompt_logprobs:
            return []
        return self.seq.token_ids[self.start + 1 : min(self.end + 1, self.seq.num_prompt_tokens)]

    @property
    def first_untold(self) -> int:
        """The index of the first of ``untold_targets``; the row before it tells its log probability."""
        return max(self.start + 1, self.seq.num_told_tokens)

    @property
    def untold_targets(self) -> list[int]:
        """Output that no row chose, whose log probabilities this step's rows tell, if they are asked for."""
        return [] if self.seq.params.logprobs is None else self.seq.token_ids[self.first_untold : self.end + 1]

    @property
    def told_beside(self) -> tuple[int, ...]:
        """The ids whose log probabilities are told beside each untold target's."""
        return self.seq.rival_token_ids or self.seq.params.logprob_token_ids

    @property
    def num_answers(self) -> int:
        """What the step must say of this sequence: of its prompt targets, its untold targets, its sampling rows."""
        return len(self.prompt_targets) + len(self.untold_targets) + self.num_sampling_rows


@dataclass(frozen=True, slots=True)
class Batch:
    """The work of one step, oldest sequence first; prefill chunks, decode tokens and drafts side by side."""

    scheduled: tuple[ScheduledSequence, ...] = ()

    @property
    def num_rows(self) -> int:
        return sum(item.num_rows for item in self.scheduled)
