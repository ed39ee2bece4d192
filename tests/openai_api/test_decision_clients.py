"""The clients of decisions, unmodified, against a live server with the real base model."""

import asyncio
from enum import StrEnum
from statistics import mean
from typing import Annotated, Any, Literal

import httpx
import pytest
from openai import OpenAI
from openai.types.decision import Decision

from tests.openai_api.real_server import RealServer

REVIEW = "The hotel was dirty, the staff was rude and the food was cold. I will never come back."
TOPICS = ["card arrival", "lost or stolen card", "exchange rate", "pin blocked", "top up failed"]
TEXTS = {
    "I ordered my card two weeks ago, and it is still not in the mail": "card arrival",
    "Somebody has taken my wallet with the card in it": "lost or stolen card",
    "How many dollars do I get for a euro?": "exchange rate",
}


@pytest.fixture(scope="module")
def client(server: RealServer) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="unused", timeout=120)


def choice(instructions: str, values: list[Any], **fields: Any) -> dict[str, Any]:
    return {"type": "choice", "instructions": instructions, "choices": [{"value": each} for each in values], **fields}


def test_openai_decisions(client: OpenAI) -> None:
    for text, topic in TEXTS.items():
        question = choice("What is the customer asking about?", TOPICS, name="topic")
        decision = client.decisions.create(model="gemma-3-270m", input=text, questions=[question])
        assert Decision.model_validate(decision.to_dict(), strict=True) == decision
        assert decision.answers[0].choice == topic


def test_every_score_is_what_echoed_log_probabilities_say(client: OpenAI, server: RealServer) -> None:
    text, options = next(iter(TEXTS)), [" card arrival", " card linking", " card", " pin blocked"]
    values = [option.strip() for option in options]
    decision = client.decisions.create(
        model="gemma-3-270m",
        input=text,
        questions=[choice("What?", values), {"type": "predicate", "instructions": "So?"}],
    )
    gains, surprises = [], []
    for option in options:
        of_option = []
        for told in (text, "N/A"):
            prompt = f"Text: {told}\nQuestion: What?\nAnswer:"
            num_tokens = len(httpx.post(f"{server.url}/tokenize", json={"prompt": prompt}).json()["tokens"])
            echoed = client.completions.create(
                model="gemma-3-270m", prompt=prompt + option, max_tokens=0, echo=True, logprobs=0
            )
            # Neither side counts <bos>.
            of_option.append(sum(echoed.choices[0].logprobs.token_logprobs[num_tokens:]))
        gains.append(of_option[0] - of_option[1])
        surprises.append(-of_option[1])
    gains = [gain * (mean(surprises) / surprise) ** 0.5 for gain, surprise in zip(gains, surprises, strict=True)]
    found = [each.probability for each in decision.answers[0].probabilities]
    for gain, probability in zip(gains, found, strict=True):
        assert probability == pytest.approx(found[0] * 2.718281828459045 ** (gain - gains[0]), rel=1e-4, abs=1e-9)


def test_what_is_asked_beside_or_before_changes_no_answer(client: OpenAI) -> None:
    question = choice("What is the customer asking about?", TOPICS)
    others = [{"type": "predicate", "instructions": f"Is it about {topic}?"} for topic in TOPICS]
    text = next(iter(TEXTS))
    alone = client.decisions.create(model="gemma-3-270m", input=text, questions=[question])
    beside = client.decisions.create(model="gemma-3-270m", input=text, questions=[*others, question])
    assert beside.answers[-1].to_dict() == alone.answers[0].to_dict()
    assert beside.usage.input_tokens > alone.usage.input_tokens
    assert beside.usage.input_tokens_details.cached_tokens > 0


class Verdict(StrEnum):
    PRAISE = "praise"
    COMPLAINT = "complaint"


def pydantic_models(server: RealServer) -> list[Any]:
    from pydantic_ai.models.openai_decisions import OpenAIDecisionsModel
    from pydantic_ai.models.system_one import SystemOneModel
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.providers.system_one import SystemOneProvider

    of_openai = OpenAIProvider(base_url=f"{server.url}/v1", api_key="unused")
    return [
        OpenAIDecisionsModel("gemma-3-270m", provider=of_openai),
        SystemOneModel("gemma-3-270m", provider=SystemOneProvider(base_url=server.url)),
    ]


@pytest.mark.parametrize("index", [0, 1], ids=["openai-decisions", "system-one"])
def test_pydantic_ai(server: RealServer, index: int) -> None:
    """Yes or no, an enumeration, a rubric, and a model of such fields, each as an output type."""
    from pydantic import BaseModel, Field
    from pydantic_ai import Agent

    class Review(BaseModel):
        verdict: Verdict = Field(description="Is it praise or a complaint?")
        is_angry: bool = Field(description="Is the guest angry?")
        stars: Annotated[
            int,
            Field(
                description="How good was the stay?",
                json_schema_extra={"anyOf": [{"const": i, "description": f"{i} stars"} for i in range(3)]},
            ),
        ] = 0
        sure: float = Field(ge=0, le=1, description="Will the guest come back?")

    async def ask() -> list[Any]:
        model = pydantic_models(server)[index]
        types = [bool, Verdict, Literal["hotel", "restaurant"], Review]
        agents = [Agent(model, output_type=each, instructions="Judge the review.") for each in types]
        async with model.client:
            return [(await agent.run(REVIEW)).output for agent in agents]

    is_so, verdict, kind, review = asyncio.run(ask())
    assert isinstance(is_so, bool)
    assert verdict is Verdict.COMPLAINT
    assert kind in ("hotel", "restaurant")
    assert review.verdict is Verdict.COMPLAINT
    assert 0 <= review.sure <= 1
    assert isinstance(review.is_angry, bool)


def test_many_requests_at_once_are_answered_as_alone(client: OpenAI) -> None:
    async def ask_all(texts: list[str]) -> list[Any]:
        async with httpx.AsyncClient(base_url=str(client.base_url), timeout=120) as http:
            body = {"questions": [choice("What is the customer asking about?", TOPICS)]}
            answers = await asyncio.gather(*[http.post("decisions", json={**body, "input": text}) for text in texts])
            return [answer.json()["answers"] for answer in answers]

    texts = [*TEXTS, REVIEW]
    alone = [asyncio.run(ask_all([text]))[0] for text in texts]
    assert asyncio.run(ask_all(texts * 3)) == alone * 3
