"""The answer of ``/v1/completions``, whole or as events.

Owns OpenAI's older shape: text beside log probabilities that count through a choice's text. Knows
neither the request's fields nor the engine. Runs on the event loop; a whole answer with many log
probabilities is written in a worker thread.
"""

import json
from collections.abc import Sequence

from openai_api.answer.chunks import Chunk, forced_flags
from openai_api.answer.generation import Job, Usage
from openai_api.answer.json_pieces import json_text
from openai_api.answer.logprobs import LegacyLogprobsWriter
from openai_api.answer.models import Completion, CompletionChoice
from openai_api.answer.prompt_logprobs import prompt_logprobs_answer
from openai_api.answer.writer import ChunkWriter, Head, finish_word, usage_answer
from openai_api.engine_api import Tokenizer
from openai_api.errors import ApiError
from openai_api.request.schemas import CompletionRequest


class CompletionWriter:
    """A ``Writer``: one event for each gain of a choice, the last with its ``finish_reason``.

    Mutable.
    """

    def __init__(self, body: CompletionRequest, job: Job, head: Head, tokenizer: Tokenizer) -> None:
        self._head = head
        self._job = job
        self._tokenizer = tokenizer
        self._returns_token_ids = bool(body.return_token_ids)
        self._shows_forced = bool(body.return_forced)
        self._begun: set[int] = set()
        self._chunk_writer = ChunkWriter(head.envelope("text_completion"), body.stream_options)
        self._logprobs = [
            LegacyLogprobsWriter(
                tokenizer,
                num_alternatives=len(job.params.logprob_token_ids) or body.logprobs or 0,
                skip_first=bool(job.echo) and job.echo[choice // job.params.n].hides_first,
                as_token_ids=bool(body.return_tokens_as_token_ids),
            )
            for choice in range(job.num_choices)
        ]

    def whole(self, chunks: Sequence[Chunk], usage: Usage) -> Completion:
        """The body: the choices of the first prompt, then those of the next."""
        return Completion(
            **self._head.envelope("text_completion"),
            choices=[self._choice(chunk) for chunk in chunks],
            usage=usage_answer(usage),
        )

    def _choice(self, chunk: Chunk) -> CompletionChoice:
        choice = CompletionChoice(
            index=chunk.choice,
            text=chunk.text,
            logprobs=self._logprobs[chunk.choice].write(chunk),
            finish_reason=finish_word(chunk.finish_reason),
        )
        if self._returns_token_ids:
            prompt = self._prompt_token_ids(chunk.choice)
            choice.token_ids = list(chunk.token_ids[len(prompt) if self._job.echo else 0 :])
            choice.prompt_token_ids = list(prompt)
        if self._shows_forced:
            num_echoed = len(self._prompt_token_ids(chunk.choice)) if self._job.echo else 0
            choice.forced = forced_flags(chunk, num_tokens=len(chunk.token_ids) - num_echoed)
        if chunk.prompt_logprobs is not None:
            choice.prompt_logprobs = prompt_logprobs_answer(chunk, self._tokenizer)
        return choice

    def opening(self, usage: Usage) -> str:
        """Nothing, ``""``: the first event is the first text."""
        return ""

    def events(self, chunks: Sequence[Chunk], usage: Usage) -> str:
        """One event for each chunk."""
        return "".join([self._event(chunk, usage) for chunk in chunks])

    def end(self, usage: Usage) -> str:
        """The totals, if they are asked for, and ``[DONE]``."""
        return self._chunk_writer.end(usage)

    def error(self, error: ApiError) -> str:
        """OpenAI's error object as the last event."""
        return self._chunk_writer.error(error)

    def _event(self, chunk: Chunk, usage: Usage) -> str:
        logprobs = self._logprobs[chunk.choice].write(chunk)
        finish = "null" if chunk.finish_reason is None else f'"{chunk.finish_reason}"'
        choice = (
            f'{{"index":{chunk.choice},"text":{json.dumps(chunk.text)}'
            f',"logprobs":{"null" if logprobs is None else json_text(logprobs)},"finish_reason":{finish}'
            f"{self._of_tokens(chunk)}}}"
        )
        return self._chunk_writer.event(choice, usage)

    def _of_tokens(self, chunk: Chunk) -> str:
        """Further members of a choice, each after a comma: those that are asked for. The first chunk's own tokens are
        an echo if there is one; with it come the prompt's.
        """
        is_first = chunk.choice not in self._begun
        self._begun.add(chunk.choice)
        own = () if is_first and self._job.echo else chunk.token_ids
        members = ""
        if self._returns_token_ids:
            members += f',"token_ids":{list(own)}'
            members += f',"prompt_token_ids":{list(self._prompt_token_ids(chunk.choice))}' if is_first else ""
        if self._shows_forced:
            members += f',"forced":{json.dumps(forced_flags(chunk, num_tokens=len(own)))}'
        return members

    def _prompt_token_ids(self, choice: int) -> Sequence[int]:
        return self._job.prompts[choice // self._job.params.n]
