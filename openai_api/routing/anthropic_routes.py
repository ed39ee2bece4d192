"""The rows of Anthropic's API in the table of endpoints.

Owns their paths, bodies and answers; ``routes`` serves them, ``endpoints.anthropic`` answers.
Constants.
"""

from openai_api.answer.anthropic_models import AnthropicMessageAnswer, TokenCount
from openai_api.endpoints.anthropic import count_tokens, create_message
from openai_api.request.anthropic_fields import CountTokensRequest, MessagesRequest
from openai_api.routing.route import BODY, EVENTS, GENERATION, Route

ANTHROPIC_ROUTES = (
    Route(
        path="/v1/messages",
        serve=create_message,
        body=MessagesRequest,
        answer=AnthropicMessageAnswer,
        streams=EVENTS,
        errors=GENERATION,
    ),
    Route(
        path="/v1/messages/count_tokens", serve=count_tokens, body=CountTokensRequest, answer=TokenCount, errors=BODY
    ),
)
