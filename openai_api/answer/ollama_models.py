"""The bodies of answers of Ollama's API, with Ollama's names.

Owns names and types; knows nothing of how an answer comes about. Lines of a stream but the last are
written without these models; tests hold each to them. Durations are nanoseconds, times RFC 3339.
Runs on the event loop, or in a worker thread for a large answer.
"""

from typing import Any, Literal

from pydantic import Field

from openai_api.answer.models import Answer, TokenLogprobAnswer


class OllamaErrorAnswer(Answer):
    """The JSON body of every status from 400 on, and the last line of a stream that fails."""

    error: str


class OllamaFunction(Answer):
    """What is called."""

    name: str
    arguments: dict[str, Any]


class OllamaToolCall(Answer):
    """One call of a tool, told at once."""

    id: str
    function: OllamaFunction


class OllamaAnswerMessage(Answer):
    """The text of the answer, or of a part of it, and what it calls."""

    role: Literal["assistant"]
    content: str
    tool_calls: list[OllamaToolCall] = Field(default_factory=list)


class OllamaAnswer(Answer):
    """What both ways to generate tell. The counts and times come with ``done``: counts are tokens, and
    the three durations add up to the total. ``load_duration`` is the time in the queue.
    """

    model: str
    created_at: str
    done: bool
    done_reason: Literal["stop", "length", "load", "unload"] = "stop"
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    logprobs: list[TokenLogprobAnswer] = Field(default_factory=list)


class OllamaChatAnswer(OllamaAnswer):
    """The answer of ``/api/chat``, or a line of its stream."""

    message: OllamaAnswerMessage


class OllamaGenerateAnswer(OllamaAnswer):
    """The answer of ``/api/generate``, or a line of its stream; ``context`` is token ids."""

    response: str
    context: list[int] = Field(default_factory=list)


class ModelDetails(Answer):
    """``parameter_size`` as ``268.10M``; ``families`` has the one family."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class ListedModel(Answer):
    """One name of the model; ``size`` is bytes on disk, ``digest`` SHA-256 in hexadecimal digits."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: ModelDetails


class ListedModels(Answer):
    """The one model, once under each of its names."""

    models: list[ListedModel]


class RunningModel(Answer):
    """The same, as it is in memory; sizes are bytes, ``context_length`` tokens."""

    name: str
    model: str
    size: int
    digest: str
    details: ModelDetails
    expires_at: str
    size_vram: int
    context_length: int


class RunningModels(Answer):
    """The one model, once under each of its names."""

    models: list[RunningModel]


class ShownModel(Answer):
    """``template`` is the checkpoint's own, in Jinja; ``parameters`` are lines of names and values."""

    license: str
    modelfile: str
    parameters: str
    template: str
    details: ModelDetails
    model_info: dict[str, str | int | float | None]
    capabilities: list[str]
    modified_at: str


class PullStatus(Answer):
    """A line of a stream of them, or the last one alone."""

    status: str
