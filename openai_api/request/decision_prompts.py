"""What the model reads of a question, and which texts may follow.

Owns the wording, chosen by measurement (docs/decisions.md), and its token ids. A short question follows its input, which
the questions of a request then share. A long one comes first, so that requests that ask the same find it in the prefix
cache. The options are not listed: a small model finds one better without. Runs in a worker thread for long texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import ContextLengthError
from gemma3.text.chat import Message
from openai_api.app_state import AppState
from openai_api.errors import invalid_value
from openai_api.request.prompts import check_text_length
from openai_api.request.questions import Question

NO_INPUT = "N/A"
"""In place of an input: what is likely after it is likely anyway."""

SHORT_QUESTION = 200
"""Characters, some 50 tokens: less to compute again with each input than the options are."""


@dataclass(frozen=True, slots=True)
class ScoredQuestion:
    """Token ids: of the prompt, of the same prompt without an input, and of each option behind it."""

    prompt: tuple[int, ...]
    prompt_without_input: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]

    @property
    def num_tokens(self) -> int:
        """Of the prompt and of all options."""
        return len(self.prompt) + sum(map(len, self.options))


async def scored_questions(text: str, questions: Sequence[Question], app_state: AppState) -> list[ScoredQuestion]:
    """Raises: ApiError 400, too much text in all; ContextLengthError, a prompt with its longest option does not fit."""
    num_chars = sum(len(text) + len(question.instructions) for question in questions)
    most = app_state.settings.max_text_chars
    if num_chars > most:
        message = f"Invalid value for 'questions': with the input they have {num_chars} characters"
        raise invalid_value("questions", f"{message}; at most {most} are allowed in one request.")
    check_text_length(app_state, text, param="input", must_fit=True)
    return await app_state.off_loop.run(
        num_chars, lambda: [_scored(text.strip(), question, app_state) for question in questions]
    )


def _scored(text: str, question: Question, app_state: AppState) -> ScoredQuestion:
    is_tuned, tokenizer = app_state.engine.info.is_instruction_tuned, app_state.engine.tokenizer
    before = "" if is_tuned else " "
    scored = ScoredQuestion(
        _prompt(question.instructions, text, app_state),
        _prompt(question.instructions, NO_INPUT, app_state),
        tuple([tuple(tokenizer.encode(before + option, add_bos=False)) for option in question.options]),
    )
    limit = app_state.engine.info.max_model_len
    num_tokens = max(len(scored.prompt), len(scored.prompt_without_input)) + max(map(len, scored.options))
    if num_tokens > limit:
        raise ContextLengthError(limit, num_tokens, param="input")
    return scored


def _prompt(instructions: str, text: str, app_state: AppState) -> tuple[int, ...]:
    """A turn to answer for a checkpoint that knows turns, else a form that asks for one line."""
    told = _question_and_text(instructions.strip(), text)
    engine = app_state.engine
    if engine.info.is_instruction_tuned:
        turn = [Message("user", told)]
        return tuple(engine.render_chat(turn, add_generation_prompt=True, continue_final_message=False).token_ids)
    return tuple(engine.tokenizer.encode(f"{told}\nAnswer:", add_bos=True))


def _question_and_text(instructions: str, text: str) -> str:
    if not instructions:
        return f"Text: {text}"
    parts = [f"Question: {instructions}", f"Text: {text}"]
    return "\n".join(reversed(parts) if len(instructions) <= SHORT_QUESTION else parts)
