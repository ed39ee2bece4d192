"""The body of ``POST /v1/batches``: OpenAI's names, types and limits.

Owns what may stand in it; knows neither files nor how a batch runs. Pure; any thread may call it.
"""

from typing import Annotated, Literal

from pydantic import Field

from openai_api.request.request_field import exact
from openai_api.request.strict_model import StrictModel

WINDOWS_S = {"24h": 24 * 3600}
MIN_LIFE_S, MAX_LIFE_S = 3_600, 2_592_000
MAX_METADATA = 16

BATCH_FIELDS = (
    exact("input_file_id", "required: the id of a file that was uploaded with the purpose `batch`"),
    exact("endpoint", "required: `/v1/chat/completions`, `/v1/completions` or `/v1/decisions`"),
    exact("completion_window", "required: `24h`; rows that are not computed by then are errors"),
    exact("metadata", f"up to {MAX_METADATA} strings by name, told back"),
    exact("output_expires_after", "how long the files with the answers are kept; default: until they are deleted"),
    exact("output_expires_after.anchor", "`created_at`"),
    exact("output_expires_after.seconds", f"from {MIN_LIFE_S} to {MAX_LIFE_S}"),
)

Word = Annotated[str, Field(max_length=512)]


class OutputExpiresAfter(StrictModel):
    """``seconds`` from when a file is there."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=MIN_LIFE_S, le=MAX_LIFE_S)]


class BatchRequest(StrictModel):
    """The body of ``POST /v1/batches``."""

    input_file_id: str
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/decisions"]
    completion_window: Literal["24h"]
    metadata: Annotated[dict[str, Word], Field(max_length=MAX_METADATA)] | None = None
    output_expires_after: OutputExpiresAfter | None = None
