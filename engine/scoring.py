"""The log probabilities of known continuations of one prompt, with as few rows as they need.

The continuations are a tree: what two of them begin with is computed and told once. One sequence, the
first, computes the prompt, whose last row tells of every continuation's first token. Each further
branch is a sequence of its own, which finds the prompt in the cache. Owns which sequence tells of
which node; knows no queue. Engine thread only.

Worked example, the tokens of "A", "AB", "AC" and "D" behind the prompt P::

    sequence 0: P A, told of after P: A, D
    sequence 1: P A B, told of after P A: B, C
"""

import math
from collections import abc
from dataclasses import dataclass, field

from engine.caller import Caller
from engine.errors import RequestError, StepError
from engine.outputs import TokenLogprob
from engine.prompt_lookup import PromptLookup
from engine.sampling_params import SamplingParams
from engine.sequence import Sequence

SCORING = SamplingParams(temperature=0.0, max_tokens=0, logprobs=0)
MAX_CONTINUATIONS = 1024

Tokens = tuple[int, ...]


def check_continuations(
    continuations: abc.Sequence[Tokens], *, vocab_size: int, num_prompt_tokens: int, max_model_len: int
) -> None:
    """Raises: RequestError, there are none or too many, one is empty, too long, or has an id outside the vocabulary."""
    if not 1 <= len(continuations) <= MAX_CONTINUATIONS:
        raise _refused(f"there are {len(continuations)} of them; 1 to {MAX_CONTINUATIONS} are allowed")
    for tokens in continuations:
        if not tokens:
            raise _refused("one is empty; each must have at least 1 token")
        if num_prompt_tokens + len(tokens) > max_model_len:
            room = f"one has {len(tokens)} tokens and the prompt {num_prompt_tokens}"
            raise _refused(f"{room}; together at most {max_model_len} are allowed")
        if not (min(tokens) >= 0 and max(tokens) < vocab_size):
            raise _refused(f"one holds an id outside of the vocabulary; ids from 0 to {vocab_size - 1} are allowed")


def _refused(why: str) -> RequestError:
    return RequestError(f"The continuations cannot be scored: {why}.", param="continuations")


@dataclass(frozen=True, slots=True)
class _Branch:
    """``tokens`` behind the prompt, of which a sequence tells from index ``first_told`` on, and of their rivals."""

    tokens: Tokens
    first_told: int
    rivals: Tokens


@dataclass(slots=True)
class Scoring:
    """What one request has learned so far. Mutable."""

    continuations: tuple[Tokens, ...]
    _branches: list[_Branch] = field(default_factory=list)
    _children: dict[Tokens, dict[int, float]] = field(default_factory=dict)  # by what stands before them

    def __post_init__(self) -> None:
        for tokens in self.continuations:
            for i, token_id in enumerate(tokens):
                self._children.setdefault(tokens[:i], {})[token_id] = math.nan
        told: set[Tokens] = set()
        for tokens in [self.continuations[0][:1], *sorted(self.continuations, key=len, reverse=True)]:
            nodes = [tokens[:i] for i in range(len(tokens)) if tokens[:i] not in told]
            if nodes:
                rivals = dict.fromkeys(token_id for node in nodes for token_id in self._children[node])
                self._branches.append(_Branch(tokens, len(nodes[0]), tuple(rivals)))
                told.update(nodes)

    @property
    def num_sequences(self) -> int:
        """Of all branches, the prompt's included."""
        return len(self._branches)

    def first_sequence(self, request_id: str, prompt: list[int], *, seq_id: int, caller: Caller) -> Sequence:
        """The one that computes the prompt."""
        return self._sequence(0, request_id, prompt, seq_id=seq_id, caller=caller)

    def further_sequences(self, first: Sequence, *, first_seq_id: int) -> list[Sequence]:
        """All others, when the prompt is in the cache. They share its list of tokens until they begin."""
        prompt = first.token_ids[: first.num_prompt_tokens]
        return [
            self._sequence(index, first.request_id, prompt, seq_id=first_seq_id + index - 1, caller=first.caller)
            for index in range(1, len(self._branches))
        ]

    def _sequence(self, index: int, request_id: str, prompt: list[int], *, seq_id: int, caller: Caller) -> Sequence:
        branch = self._branches[index]
        return Sequence(
            seq_id=seq_id,
            request_id=request_id,
            index=index,
            params=SCORING,
            token_ids=prompt,
            num_prompt_tokens=len(prompt),
            num_told_tokens=len(prompt) + branch.first_told,
            max_num_tokens=len(prompt) + len(branch.tokens),
            end_token_ids=frozenset(),
            caller=caller,
            lookup=PromptLookup([]),
            scored_token_ids=branch.tokens,
            rival_token_ids=branch.rivals,
        )

    def take(self, seq: Sequence, logprobs: abc.Sequence[TokenLogprob]) -> None:
        """What the next untold tokens of ``seq``, and their rivals, are told to be.

        Raises: StepError, they are not numbers.
        """
        for told in logprobs:
            node = self._branches[seq.index].tokens[: seq.num_told_tokens - seq.num_prompt_tokens]
            children = self._children[node]
            children.update({token_id: logprob for token_id, logprob in told.top if token_id in children})
            if any(math.isnan(logprob) for logprob in children.values()):
                raise StepError("The model step of this request failed: the logits are not finite.")
            seq.num_told_tokens += 1

    def result(self) -> tuple[tuple[float, ...], ...]:
        """Of each continuation's tokens, when all sequences have ended."""
        return tuple(
            [
                tuple([self._children[tokens[:i]][token_id] for i, token_id in enumerate(tokens)])
                for tokens in self.continuations
            ]
        )
