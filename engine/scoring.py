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
    """``tokens`` behind the prompt, and the node before each; a sequence tells of them and their rivals from ``first_told``."""

    tokens: Tokens
    nodes: Tokens
    first_told: int
    rivals: Tokens


@dataclass(slots=True)
class Scoring:
    """What one request has learned so far. Mutable. Nodes are numbered; 0 is the end of the prompt."""

    continuations: tuple[Tokens, ...]
    _nodes: list[Tokens] = field(default_factory=list)  # of each continuation, before each of its tokens
    _branches: list[_Branch] = field(default_factory=list)
    _children: list[dict[int, float]] = field(default_factory=lambda: [{}])  # by node

    def __post_init__(self) -> None:
        ends: dict[tuple[int, int], int] = {}
        self._nodes += [self._grow(tokens, ends) for tokens in self.continuations]
        paths = sorted(zip(self.continuations, self._nodes, strict=True), key=lambda path: len(path[0]), reverse=True)
        told: set[int] = set()
        for tokens, nodes in [(self.continuations[0][:1], (0,)), *paths]:
            news = [node for node in nodes if node not in told]
            if news:
                rivals = dict.fromkeys(token_id for node in news for token_id in self._children[node])
                self._branches.append(_Branch(tokens, nodes, len(nodes) - len(news), tuple(rivals)))
                told.update(news)

    def _grow(self, tokens: Tokens, ends: dict[tuple[int, int], int]) -> Tokens:
        """The node before each token; ``ends``: the node behind a token at a node."""
        node, nodes = 0, []
        for token_id in tokens:
            nodes.append(node)
            self._children[node][token_id] = math.nan
            node = ends.setdefault((node, token_id), len(self._children))
            if node == len(self._children):
                self._children.append({})
        return tuple(nodes)

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
            nodes = self._branches[seq.index].nodes
            children = self._children[nodes[seq.num_told_tokens - seq.num_prompt_tokens]]
            children.update({token_id: logprob for token_id, logprob in told.top if token_id in children})
            if any(math.isnan(logprob) for logprob in children.values()):
                raise StepError("The model step of this request failed: the logits are not finite.")
            seq.num_told_tokens += 1

    def result(self) -> tuple[tuple[float, ...], ...]:
        """Of each continuation's tokens, when all sequences have ended."""
        return tuple(
            [
                tuple([self._children[node][token_id] for node, token_id in zip(nodes, tokens, strict=True)])
                for tokens, nodes in zip(self.continuations, self._nodes, strict=True)
            ]
        )
