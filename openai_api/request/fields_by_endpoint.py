"""The table of fields of every endpoint, by its path.

``GET /v1/capabilities`` answers with it, ``field_tables`` writes it into the documentation. Owns no
field. A constant, so any thread may read it.
"""

from collections.abc import Mapping

from openai_api.request.anthropic_notes import COUNT_TOKENS_FIELDS, MESSAGES_FIELDS
from openai_api.request.batch_fields import BATCH_FIELDS
from openai_api.request.field_support import (
    CHAT_FIELDS,
    COMPLETION_FIELDS,
    DECISION_FIELDS,
    DETOKENIZE_FIELDS,
    SYSTEM_ONE_FIELDS,
    TOKENIZE_FIELDS,
)
from openai_api.request.ollama_notes import OLLAMA_CHAT_FIELDS, OLLAMA_GENERATE_FIELDS, PULL_FIELDS, SHOW_FIELDS
from openai_api.request.request_field import RequestField
from openai_api.request.responses_notes import RESPONSES_FIELDS

FIELDS_BY_ENDPOINT: Mapping[str, tuple[RequestField, ...]] = {
    "/v1/chat/completions": CHAT_FIELDS,
    "/v1/completions": COMPLETION_FIELDS,
    "/v1/responses": RESPONSES_FIELDS,
    "/tokenize": TOKENIZE_FIELDS,
    "/detokenize": DETOKENIZE_FIELDS,
    "/v1/decisions": DECISION_FIELDS,
    "/v1/systemone": SYSTEM_ONE_FIELDS,
    "/v1/messages": MESSAGES_FIELDS,
    "/v1/messages/count_tokens": COUNT_TOKENS_FIELDS,
    "/api/chat": OLLAMA_CHAT_FIELDS,
    "/api/generate": OLLAMA_GENERATE_FIELDS,
    "/api/show": SHOW_FIELDS,
    "/api/pull": PULL_FIELDS,
    "/v1/batches": BATCH_FIELDS,
}
