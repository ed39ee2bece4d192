"""What the engine thread remembers of one sequence, and the batch of one step.

Owns the state of a sequence and nothing else: the scheduler decides who runs, the KV cache manager fills the block
tables, the runner only reads. ``num_computed_tokens`` against ``num_tokens`` is the whole state machine: prefill,
chunked prefill, recomputing after a preemption and decode are all "compute until computed catches up with known".
Engine thread only.
"""

from collections import abc
from dataclasses import dataclass, field
from enum import Enum, auto

from engine.block_pool import BlockTable
from engine.caller import ANYBODY, Caller
from engine.prompt_lookup import PromptLookup
from engine.random_numbers import uniform
from engine.sampling_params import SamplingParams


class SequenceStatus(Enum):
    WAITING = auto()
    RUNNING = auto()
    PREEMPTED = auto()  # waits again: its blocks were needed by an older one, its tokens are kept
    FINISHED = auto()


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """One of a request's ``n`` sequences. Mutable.

    Attributes:
        seq_id: unique and growing with arrival.
        index: which of the ``n`` it is.
        token_ids: prompt, then output. Only the scheduler appends.
        max_num_tokens: prompt and output together may not grow beyond this, which is at most the context.
        end_token_ids: each of them ends the sequence; none is sampled before ``min_tokens``.
        caller: whose turn in the queue it takes, and whose computed prefixes it may find.
        lookup: guesses at its next tokens, for the scheduler.
        leader: the sequence 0 of the same request, whose prompt this one waits for; ``None`` for sequence 0 itself.
        age: grows with the first admission: the smaller, the older; the scheduler's.
        num_computed_tokens: tokens whose K and V are in the cache; set by the KV cache manager.
        num_cached_tokens: how many of the prompt's tokens the first admission found in the cache.
        prefix_id: names the prefix that the full computed blocks make up; the KV cache manager's.
        last_turn: when it last got a whole prefill chunk; the scheduler's.
    """

    seq_id: int
    request_id: str
    index: int
    params: SamplingParams
    token_ids: list[int]
    num_prompt_tokens: int
    max_num_tokens: int
    end_token_ids: frozenset[int]
    caller: Caller
    lookup: PromptLookup
    leader: "Sequence | None" = None

    status: SequenceStatus = SequenceStatus.WAITING
    age: int = -1
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0
    global_table: BlockTable = field(default_factory=BlockTable)
    sliding_table: BlockTable = field(default_factory=BlockTable)
    prefix_id: int | str = ""
    last_turn: int = 0

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def output_token_ids(self) -> list[int]:
        return self.token_ids[self.num_prompt_tokens :]

    @property
    def num_uncomputed_tokens(self) -> int:
        """1 while decoding: the token sampled last has no K and V yet."""
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def is_finished(self) -> bool:
        return self.status is SequenceStatus.FINISHED

    @property
    def has_reached_max_tokens(self) -> bool:
        """Also true from the start with ``max_tokens=0``: such a sequence computes its prompt and samples nothing."""
        return len(self.token_ids) >= self.max_num_tokens

    @property
    def wants_prompt_logprobs(self) -> bool:
        """The prompt is the same for all ``n``, so sequence 0 reports it for the request."""
        return self.params.prompt_logprobs is not None and self.index == 0

    @property
    def waits_for_leader(self) -> bool:
        """True until sequence 0's prompt is in the cache, where this one will find it."""
        leader = self.leader
        return leader is not None and not leader.is_finished and leader.num_computed_tokens < leader.num_prompt_tokens


def new_sequences(
    request_id: str,
    prompt_token_ids: abc.Iterable[int],
    *,
    params: SamplingParams,
    first_seq_id: int,
    max_model_len: int,
    end_token_ids: frozenset[int] = frozenset(),
    caller: Caller = ANYBODY,
    prediction_token_ids: abc.Sequence[int] = (),
) -> list[Sequence]:
    """The ``n`` sequences of a request; they take the ids ``[first_seq_id, first_seq_id + n)``.

    ``prediction_token_ids``: what the client believes the output will be.
    """
    prompt = list(prompt_token_ids)
    # ``max_tokens`` is an upper bound: where the context ends before, the answer ends there.
    max_num_tokens = max_model_len
    if params.max_tokens is not None:
        max_num_tokens = min(max_model_len, len(prompt) + params.max_tokens)
    sequences: list[Sequence] = []
    for index in range(params.n):
        token_ids = prompt.copy()
        sequence = Sequence(
            seq_id=first_seq_id + index,
            request_id=request_id,
            index=index,
            params=params,
            token_ids=token_ids,
            num_prompt_tokens=len(prompt),
            max_num_tokens=max_num_tokens,
            end_token_ids=end_token_ids,
            caller=caller,
            lookup=PromptLookup(token_ids, prediction_token_ids),
            leader=sequences[0] if sequences else None,
        )
        sequences.append(sequence)
    return sequences


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """A row whose logits choose the next token of ``seq``, as if ``draft_token_ids`` were already its output.

    Everything that sampling asks of a sequence is asked here, drafts included: they are kept only if this comes true.
    """

    seq: Sequence
    draft_token_ids: tuple[int, ...] = ()

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
    def token_ids(self) -> list[int]:
        return [*self.seq.token_ids, *self.draft_token_ids]

    @property
    def output_token_ids(self) -> list[int]:
        return [*self.seq.output_token_ids, *self.draft_token_ids]


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
        return self.end == self.seq.num_tokens and not self.seq.has_reached_max_tokens

    @property
    def num_sampling_rows(self) -> int:
        return 1 + len(self.draft_token_ids) if self.samples else 0

    @property
    def sampling_rows(self) -> list[SamplingRow]:
        """The last ``1 + len(draft_token_ids)`` rows, or none."""
        drafts = self.draft_token_ids
        return [SamplingRow(self.seq, drafts[:num_accepted]) for num_accepted in range(self.num_sampling_rows)]

    @property
    def prompt_targets(self) -> list[int]:
        """The prompt's tokens after each of this step's first rows, if their log probabilities are asked for."""
        if not self.seq.wants_prompt_logprobs:
            return []
        return self.seq.token_ids[self.start + 1 : min(self.end + 1, self.seq.num_prompt_tokens)]

    @property
    def num_answers(self) -> int:
        """What the step must say of this sequence: of its prompt targets, then of its sampling rows."""
        return len(self.prompt_targets) + self.num_sampling_rows


@dataclass(frozen=True, slots=True)
class Batch:
    """The work of one step, oldest sequence first; prefill chunks, decode tokens and drafts side by side."""

    scheduled: tuple[ScheduledSequence, ...] = ()

    @property
    def num_rows(self) -> int:
        return sum(item.num_rows for item in self.scheduled)
