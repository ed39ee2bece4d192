"""Answers of an engine, written to standard output as they come.

Owns one answer from its tokens to its last line: room in the context, Ctrl-C, the figures. Knows
neither flags nor what is asked; the text alone goes to standard output. The thread of the engine.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from engine.errors import EngineError
from engine.outputs import FinishReason
from engine.terminal.guard import write_output
from engine.terminal.sampling import ChosenSampling
from gemma3.text.window import window

if TYPE_CHECKING:
    from engine.llm_engine import LLMEngine

log = logging.getLogger("gemma3")


@dataclass(slots=True)
class Answer:
    """Grows while it is written. ``finish_reason`` is ``None`` for one that Ctrl-C has stopped."""

    asked_s: float = field(default_factory=time.perf_counter)
    first_s: float = 0.0
    text: str = ""
    num_tokens: int = 0
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerWriter:
    """Writes answers of at most ``max_tokens`` tokens, and figures after them with ``shows_figures``.

    ``began_s`` and ``loaded_s`` are the program's, on ``time.perf_counter``.
    """

    engine: "LLMEngine"
    sampling: ChosenSampling
    max_tokens: int
    began_s: float
    loaded_s: float
    shows_figures: bool

    def window(self, token_ids: Sequence[int]) -> Sequence[int]:
        """The part of a prompt that the model sees, with a notice if that is not all."""
        context_length = self.engine.info.max_model_len
        kept = window(token_ids, context_length=context_length, max_new_tokens=self.max_tokens)
        if len(kept) < len(token_ids):
            num_tokens, num_kept = len(token_ids), len(kept)
            log.warning(
                "The prompt has %d tokens; only the last %d fit the context and are used.", num_tokens, num_kept
            )
        return kept

    def write(
        self, token_ids: Sequence[int], *, stop: Sequence[str] = (), stop_token_ids: Sequence[int] = ()
    ) -> Answer:
        """Write one continuation and a line break. Ctrl-C ends it early.

        Raises:
            ValueError: the engine cannot serve it.
            OSError: standard output cannot be written.
        """
        params = replace(
            self.sampling.params,
            max_tokens=min(self.max_tokens, self.engine.info.max_model_len - len(token_ids)),
            stop=tuple(stop),
            stop_token_ids=tuple(stop_token_ids),
        )
        answer = Answer()
        try:
            with closing(self.engine.stream(token_ids, params)) as outputs:
                for delta in (delta for output in outputs for delta in output.deltas):
                    answer.first_s = answer.first_s or time.perf_counter()
                    answer.num_tokens += len(delta.token_ids)
                    answer.text += delta.text
                    answer.finish_reason = delta.finish_reason
                    write_output(delta.text)
        except EngineError as error:
            raise ValueError(str(error)) from error
        except KeyboardInterrupt:
            log.info("\n(stopped)")
        write_output("\n")
        if self.shows_figures:
            self._log_figures(answer)
        return answer

    def _log_figures(self, answer: Answer) -> None:
        decode_s = time.perf_counter() - answer.first_s
        speed = f"{(answer.num_tokens - 1) / decode_s:.1f} tokens/s" if answer.num_tokens > 1 else "-"
        log.info(
            "load %.2f s, first token %.0f ms after the prompt (%.2f s after start), %d tokens, %s",
            self.loaded_s - self.began_s,
            (answer.first_s - answer.asked_s) * 1e3,
            answer.first_s - self.began_s,
            answer.num_tokens,
            speed,
        )
