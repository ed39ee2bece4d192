"""What the engine thread remembers of one sequence.

Owns the state of a sequence and nothing else: the scheduler decides who runs, the KV cache manager fills the block
tables, the runner only reads. ``num_computed_tokens`` against ``num_tokens`` is the whole state machine: prefill,
chunked prefill, recomputing after a preemption and decode are all "compute until computed catches up with known".
Engine thread only.
"""

import time
from collections import abc
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from engine.block_pool import BlockTable
from engine.caller import ANYBODY, Caller
from engine.prompt_lookup import PromptLookup
from engine.sampling_params import SamplingParams
from engine.seen_tokens import SeenTokens

if TYPE_CHECKING:
    from engine.grammar.state import GrammarState

MAX_DECODE_TOKENS = 16  # what a sequence that decodes may compute in a step: as many rows as guesses may make


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
        token_ids: prompt, then output. Only the scheduler appends, after ``begin``.
        max_num_tokens: prompt and output together may not grow beyond this.
        end_token_ids: each of them ends the sequence; none is sampled before ``min_tokens``.
        caller: whose turn in the queue it takes, and whose computed prefixes it may find.
        lookup: guesses at its next tokens, for the scheduler; from ``begin`` to ``end``.
        leader: the sequence 0 of the same request, whose prompt this one waits for; ``None`` for sequence 0 itself.
        admitted_s: when it was admitted first, by ``time.perf_counter``; 0 before.
        age: grows with the first admission: the smaller, the older; the scheduler's.
        num_computed_tokens: tokens whose K and V are in the cache; set by the KV cache manager.
        num_cached_tokens: how many of the prompt's tokens the first admission found in the cache.
        grammar: what the output must be, advanced to the last token; from ``begin`` to ``end``.
        is_complete: nothing may follow in the grammar.
        num_forced_tokens: the newest tokens that no row chose, since the grammar allows no others.
        forced: a byte for each token of the output, 1 if it was forced; empty without a grammar.
        num_accepted_draft_tokens: how many of the output's were guessed.
        num_told_tokens: the prompt's, and the output's that were reported; the engine core's.
        scored_token_ids: output that is known from the start, of which only log probabilities are wanted; ``begin``
            appends it, and its last token is never computed. Empty for a sequence that generates.
        rival_token_ids: whose log probabilities are told beside those of the scored tokens.
        seen: the ids of its tokens, as far as a penalty has asked for them.
        prefix_id: names the prefix that the full computed blocks make up; the KV cache manager's.
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
    prediction_token_ids: abc.Sequence[int] = ()
    leader: "Sequence | None" = None

    status: SequenceStatus = SequenceStatus.WAITING
    admitted_s: float = 0.0
    age: int = -1
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0
    grammar: "GrammarState | None" = None
    is_complete: bool = False
    num_forced_tokens: int = 0
    forced: bytearray = field(default_factory=bytearray)
    num_accepted_draft_tokens: int = 0
    num_told_tokens: int = 0
    scored_token_ids: tuple[int, ...] = ()
    rival_token_ids: tuple[int, ...] = ()
    global_table: BlockTable = field(default_factory=BlockTable)
    sliding_table: BlockTable = field(default_factory=BlockTable)
    seen: SeenTokens = field(default_factory=SeenTokens)
    prefix_id: int | str = ""

    def begin(self) -> None:
        """Have tokens of its own: 63 siblings that wait share one list, which may be as long as the context."""
        self.admitted_s = time.perf_counter()
        if self.leader is not None:
            self.token_ids = self.token_ids.copy()
            self.lookup = PromptLookup(self.token_ids, self.prediction_token_ids)
        if self.scored_token_ids:
            self.token_ids = [*self.token_ids, *self.scored_token_ids]
        if self.params.grammar is not None:
            self.grammar = self.params.grammar.start()
            self.follow_grammar(())

    def follow_grammar(self, chosen: abc.Sequence[int]) -> None:
        """Append what must come after ``chosen``, the newest tokens; a step computes it without choosing it.

        Raises: StepError, the grammar cannot be followed any further.
        """
        if self.grammar is None:
            return
        num_chosen = len(chosen)
        if self.params.closes and chosen:
            chosen = self.grammar.accept_within(chosen[-1], self.max_num_tokens - self.num_tokens)
            self.token_ids[-1:] = chosen
            self.forced += b"\0" + b"\1" * (len(chosen) - num_chosen)
        else:
            self.forced += self.grammar.accept_chosen(chosen)
        forced = [] if self.grammar.is_complete else self.grammar.forced(self.max_num_tokens - self.num_tokens)
        self.grammar.accept(forced)
        self.token_ids += forced
        self.num_forced_tokens = len(chosen) - num_chosen + len(forced)
        self.forced += b"\1" * len(forced)
        self.is_complete = self.grammar.is_complete

    def end(self) -> None:
        """Keep nothing large until the last sibling ends."""
        self.status = SequenceStatus.FINISHED
        self.lookup = PromptLookup([])
        self.seen = SeenTokens()
        self.grammar = None

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
        return len(self.token_ids) - bool(self.scored_token_ids) - self.num_computed_tokens

    @property
    def decodes(self) -> bool:
        """Whether a step can bring its next token, for a row or for a few: forced tokens come in front."""
        num_most = 0 if self.scored_token_ids else min(1 + self.num_forced_tokens, MAX_DECODE_TOKENS)
        return 0 < self.num_uncomputed_tokens <= num_most

    @property
    def num_reusable_tokens(self) -> int:
        """Of the first so many, none has a row that must be computed again for what it says of the next."""
        if self.scored_token_ids:
            return min(self.num_told_tokens - 1, self.num_tokens)  # it has only the prompt until it begins
        num_known = self.num_tokens if self.params.logprobs is None else min(self.num_tokens, self.num_told_tokens)
        return num_known - 1

    @property
    def is_finished(self) -> bool:
        return self.status is SequenceStatus.FINISHED

    @property
    def has_reached_max_tokens(self) -> bool:
        """Also true from the start with ``max_tokens=0``: such a sequence computes its prompt and samples nothing."""
        return len(self.token_ids) >= self.max_num_tokens

    @property
    def chooses_no_more(self) -> bool:
        """All of its tokens are known; their log probabilities may not be."""
        return self.is_complete or self.has_reached_max_tokens

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
    siblings_prompt = prompt.copy() if params.n > 1 else prompt
    lookup = PromptLookup(prompt, prediction_token_ids)
    for index in range(params.n):
        sequence = Sequence(
            seq_id=first_seq_id + index,
            request_id=request_id,
            index=index,
            params=params,
            token_ids=prompt if index == 0 else siblings_prompt,
            num_prompt_tokens=len(prompt),
            num_told_tokens=len(prompt),
            max_num_tokens=max_num_tokens,
            end_token_ids=end_token_ids,
            caller=caller,
            lookup=lookup,
            prediction_token_ids=prediction_token_ids,
            leader=sequences[0] if sequences else None,
        )
        sequences.append(sequence)
    return sequences
