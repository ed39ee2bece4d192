"""``/v1/decisions`` and ``/v1/systemone`` over a scripted engine: shapes, checks, limits, what ends with whom.

The scripted engine holds an option the likelier the more of its words are in the prompt.
"""

import asyncio
from dataclasses import replace
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from openai import OpenAI
from openai.types import decision_create_params as params
from openai.types.decision import Decision

from engine.caller import Caller
from engine.errors import StepError
from openai_api import calibrations
from openai_api.answer.option_probabilities import expected_level, probabilities
from openai_api.calibrations import Calibrations, calibration_key
from openai_api.request.decision_fields import DecisionChoice, DecisionLevel, DecisionQuestion, InputItem
from openai_api.request.fields_by_endpoint import FIELDS_BY_ENDPOINT
from openai_api.request.questions import option_text
from openai_api.request.system_one_fields import SystemOneQuestion
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import Asgi, LiveServer

CHOICE = {
    "type": "choice",
    "name": "topic",
    "instructions": "Which topic?",
    "choices": [{"value": "card"}, {"value": "pin"}],
}
PREDICATE = {"type": "predicate", "instructions": "Is it urgent?"}
SCORE = {
    "type": "score",
    "instructions": "How angry?",
    "levels": [{"label": "calm"}, {"label": "cross"}, {"label": "furious"}],
}
BODY: dict[str, Any] = {"input": "my card is lost", "questions": [CHOICE, PREDICATE, SCORE]}


def ask(asgi: Asgi, **fields: Any) -> Any:
    return asgi.post("/v1/decisions", {**BODY, **fields})


def prompts(engine: FakeEngine) -> list[str]:
    return [engine.tokenizer.decode(call.prompt_token_ids) for call in engine.calls]


def test_the_sdk_reads_every_kind_of_answer(live: LiveServer) -> None:
    client = OpenAI(base_url=f"{live.url}/v1", api_key="unused", max_retries=0)
    decision = client.decisions.create(model="gemma-3-270m-it", **BODY)
    assert Decision.model_validate(decision.to_dict(), strict=True) == decision
    choice, predicate, score = decision.answers
    assert (choice.type, choice.name, choice.choice) == ("choice", "topic", "card")
    assert choice.confidence == choice.probabilities[0].probability > choice.probabilities[1].probability
    assert [each.value for each in choice.probabilities] == ["card", "pin"]
    assert (predicate.type, predicate.name, predicate.probability) == ("predicate", None, 0.5)
    assert [(each.value, each.label) for each in score.probabilities] == [(0, "calm"), (1, "cross"), (2, "furious")]
    assert score.score == pytest.approx(1.0)
    usage = decision.usage
    assert usage.input_tokens == usage.total_tokens > 0 == usage.output_tokens
    assert usage.input_tokens_details.cached_tokens == usage.output_tokens_details.reasoning_tokens == 0


def test_a_boolean_is_another_choice_than_its_word(asgi: Asgi) -> None:
    choices = [{"value": True}, {"value": "true"}, {"value": False, "description": "card lost"}]
    (answer,) = ask(asgi, questions=[{**CHOICE, "choices": choices}]).json["answers"]
    assert answer["choice"] is False
    assert [each["value"] for each in answer["probabilities"]] == [True, "true", False]


def test_the_prompt_has_question_and_input_and_is_calibrated_without_the_input(asgi: Asgi, engine: FakeEngine) -> None:
    ask(asgi, questions=[CHOICE])
    told, usual = prompts(engine)
    assert "Text: my card is lost\nQuestion: Which topic?" in told
    assert "Text: N/A\nQuestion: Which topic?" in usual
    ask(asgi, input="another", questions=[CHOICE])
    assert len(engine.calls) == 3, "the calibration of a question is remembered"
    ask(asgi, input="another", questions=[{**CHOICE, "choices": [{"value": "card"}, {"value": "pin code"}]}])
    assert len(engine.calls) == 5, "with other options it is another question"


def test_a_base_model_is_asked_for_a_line(asgi: Asgi, engine: FakeEngine) -> None:
    engine.info = replace(engine.info, is_instruction_tuned=False)
    ask(asgi, questions=[CHOICE])
    assert prompts(engine)[0] == "Text: my card is lost\nQuestion: Which topic?\nAnswer:"


def test_a_long_question_comes_first_and_finds_itself_in_the_cache(asgi: Asgi, engine: FakeEngine) -> None:
    engine.info = replace(engine.info, is_instruction_tuned=False)
    instructions = "Which topic? " + "For example: lost, card. " * 10
    ask(asgi, questions=[{**CHOICE, "instructions": instructions}])
    assert prompts(engine)[0] == f"Question: {instructions.strip()}\nText: my card is lost\nAnswer:"


def test_a_conversation_is_one_text(asgi: Asgi, engine: FakeEngine) -> None:
    items = [
        {"role": "system", "content": "Be kind."},
        {"type": "message", "role": "user", "content": [{"type": "input_json", "data": {"a": [1, None]}}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "I look."}], "phase": "commentary"},
        {"type": "function_call", "call_id": "c", "name": "find", "arguments": "{}", "id": "i", "status": "completed"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "found"}]},
        {"type": "custom_tool_call", "call_id": "d", "name": "run", "input": "ls"},
        {"type": "custom_tool_call_output", "call_id": "d", "output": "a.txt"},
    ]
    assert ask(asgi, input=items, questions=[PREDICATE]).status == 200
    lines = 'System: Be kind.\nUser: {"a": [1, null]}\nAssistant: I look.\nCall: find({})\nResult: found\n'
    assert f"Text: {lines}Call: run(ls)\nResult: a.txt" in prompts(engine)[0]


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"input": 5}, "input", "a string or an array of messages"),
    ({"input": []}, "input", "at least 1"),
    ({"input": [{"role": "user"}]}, "input[0].content", "Missing"),
    ({"input": [{"content": "x"}]}, "input[0].role", "Missing"),
    ({"input": [{"role": "boss", "content": "x"}]}, "input[0].role", "one of 'user'"),
    ({"input": [{"type": "function_call", "call_id": "c", "name": "n"}]}, "input[0].arguments", "Missing"),
    (
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
        "input[0].call_id",
        "no call before",
    ),
    ({"input": [{"type": "reasoning"}]}, "input[0].type", "one of 'message'"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}]},
        "input[0].content[0].type",
        "text",
    ),
    ({"input": "x" * 5000}, "input", "maximum context length is 4096"),
    ({"questions": []}, "questions", "at least 1"),
    ({"questions": [PREDICATE] * 401}, "questions", "at most 400"),
    ({"questions": [{**PREDICATE, "type": "guess"}]}, "questions[0].type", "'predicate', 'choice' or 'score'"),
    ({"questions": [{"type": "predicate"}]}, "questions[0].instructions", "Missing"),
    ({"questions": [PREDICATE, {**PREDICATE, "choices": CHOICE["choices"]}]}, "questions[1].choices", "type 'choice'"),
    ({"questions": [{**CHOICE, "choices": None}]}, "questions[0].choices", "Missing"),
    ({"questions": [{**CHOICE, "choices": [{"value": "a"}]}]}, "questions[0].choices", "at least 2"),
    (
        {"questions": [{**CHOICE, "choices": [{"value": str(i)} for i in range(256)]}]},
        "questions[0].choices",
        "at most 255",
    ),
    (
        {"questions": [{**CHOICE, "choices": [{"value": "a"}, {"value": 1}]}]},
        "questions[0].choices[1].value",
        "true or false",
    ),
    (
        {"questions": [{**CHOICE, "choices": [{"value": "a"}, {"value": "a"}]}]},
        "questions[0].choices[1].value",
        "entry 0",
    ),
    ({"questions": [{**CHOICE, "choices": [{"value": "a"}, {"value": " "}]}]}, "questions[0]", "empty"),
    (
        {"questions": [{**SCORE, "levels": [{"label": "a"}, {"label": "a"}]}]},
        "questions[0].levels[1].label",
        "must differ",
    ),
    ({"questions": [{**CHOICE, "choices": [{"value": f"{i}"} for i in range(250)]}] * 20}, "questions", "at most 4096"),
    ({"input": "x" * 4000, "questions": [PREDICATE] * 400}, "questions", "at most 1048576"),
    ({"temperature": 1.5}, "temperature", "Unknown"),
    ({"tools": [{"type": "function"}]}, "tools", "Unsupported"),
]


@pytest.mark.parametrize(
    ("fields", "param", "message"), WRONG, ids=[f"{i}-{param}" for i, (_, param, _) in enumerate(WRONG)]
)
def test_what_is_wrong_is_named(
    asgi: Asgi, engine: FakeEngine, fields: dict[str, Any], param: str, message: str
) -> None:
    answer = ask(asgi, **fields)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert message in answer.error["message"]
    assert engine.calls == []


def test_a_wrong_model_is_a_404(asgi: Asgi) -> None:
    assert ask(asgi, model="other").status == 404


def test_one_question_that_fails_ends_the_request_and_all_others_of_it(asgi: Asgi, engine: FakeEngine) -> None:
    engine.scripts = {"urgent": Script(fail=StepError("x")), "": Script(prefill_s=30.0)}
    assert ask(asgi).status == 500
    assert engine.running == set()
    assert len(engine.aborted) >= 2
    engine.scripts = {}
    assert ask(asgi).status == 200


SYSTEM_ONE = {
    "state": {"text": "my card is lost"},
    "questions": {
        "urgent": {"type": "noul", "instructions": "Is it?", "criteria": {"true": "card lost", "false": None}},
        "topic": {"type": "choice", "instructions": {"q": "Which?"}, "criteria": {"card": None, "pin": {"a": 1}}},
        "anger": {"type": "score", "instructions": "How much?", "criteria": ["calm", "is lost", "furious"]},
    },
}


def test_system_one_speaks_what_its_clients_read(asgi: Asgi) -> None:
    """gemmadecision's client names no model and refuses members that it does not know; typesafe-sdk needs a legend."""
    answer = asgi.post("/v1/systemone", SYSTEM_ONE).json
    urgent, topic, anger = answer["answers"].values()
    assert answer.keys() == {"model", "answers", "usage"}
    assert answer["usage"].keys() == {"input_tokens", "output_tokens", "total_tokens"}
    assert list(answer["answers"]) == ["urgent", "topic", "anger"]
    assert urgent.keys() == {"type", "noul", "confidence", "probabilities"}
    assert urgent["noul"] == urgent["probabilities"]["true"] > 0.5
    assert topic.keys() == {"type", "choice", "confidence", "probabilities"}
    assert topic["choice"] == "card"
    assert anger.keys() == {"type", "score", "confidence", "probabilities"}
    assert anger["score"] == pytest.approx(
        sum(int(level) * each for level, each in anger["probabilities"].items()), abs=1e-6
    )
    named = asgi.post("/v1/systemone", {**SYSTEM_ONE, "model": "gemma-3-270m-it"}).json
    assert named["answers"]["anger"] == {**anger, "legend": {"0": "calm", "1": "is lost", "2": "furious"}}


def test_a_temperature_of_system_one_sharpens(asgi: Asgi) -> None:
    of_topic = [
        asgi.post("/v1/systemone", {**SYSTEM_ONE, "temperature": value}).json["answers"]["topic"]["probabilities"][
            "card"
        ]
        for value in (100, 1, 0.1, 0)
    ]
    assert of_topic == sorted(of_topic)
    assert of_topic[0] < 0.6
    assert of_topic[-1] == 1.0


@pytest.mark.parametrize(
    ("question", "param"),
    [
        ({"type": "box"}, "questions.x.type"),
        ({"type": "choice"}, "questions.x.criteria"),
        ({"type": "choice", "criteria": ["a", "b"]}, "questions.x.criteria"),
        ({"type": "choice", "criteria": {"a": None}}, "questions.x.criteria"),
        ({"type": "score", "criteria": {"a": 1, "b": 2}}, "questions.x.criteria"),
        ({"type": "score", "criteria": ["a"] * 256}, "questions.x.criteria"),
        ({"type": "noul", "criteria": {"maybe": "x"}}, "questions.x.criteria"),
        ({"type": "noul", "criteria": ["a", "b"]}, "questions.x.criteria"),
        ({"type": "noul", "other": 1}, "questions.x.other"),
    ],
)
def test_what_is_wrong_in_a_system_one_question_is_named(asgi: Asgi, question: dict[str, Any], param: str) -> None:
    answer = asgi.post("/v1/systemone", {"state": "a", "questions": {"x": question}})
    assert (answer.status, answer.error["param"]) == (400, param)


def test_probabilities_add_up_whatever_the_likelihoods() -> None:
    assert probabilities([-1.0, -1.0], [-1.0, -1.0]) == [0.5, 0.5]
    assert probabilities([-9.0, -10.0], [-12.0, -10.0])[0] > 0.9
    assert probabilities([-1e9, -float("inf"), 0.0], [0.0, -1.0, 0.0]) == [0.0, 0.0, 1.0]
    assert probabilities([-float("inf")] * 4, [-1.0] * 4) == [0.25] * 4
    assert probabilities([-2.0, -1.0, -1.0], [0.0] * 3, temperature=0) == [0.0, 1.0, 0.0]
    assert expected_level([0.25, 0.25, 0.5]) == 1.25
    assert probabilities([-17.0, -36.0], [-20.0, -40.0])[0] > 0.5, "4 nats more of 40 are less than 3 of 20"
    assert abs(sum(probabilities([-i / 7 for i in range(255)], [0.0] * 255)) - 1) < 1e-6


def test_an_option_is_its_words_and_what_they_mean() -> None:
    assert option_text("card_arrival") == "card arrival"
    assert option_text("snake_case here") == "snake_case here"
    assert option_text("2", "angry") == "angry"
    assert option_text("2") == "2"
    assert option_text("ok", {"a": 1}) == 'ok: {"a": 1}'


def test_calibrations_are_bounded_and_not_shared_between_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrations, "MAX_QUESTIONS", 3)
    monkeypatch.setattr(calibrations, "MAX_OPTIONS", 10)
    known = Calibrations()
    for name in (b"a", b"b", b"c"):
        known.keep(name, (1.0,))
    assert known.find(b"a") == (1.0,)
    known.keep(b"d", (1.0,))
    assert known.find(b"b") is None
    known.keep(b"e", (1.0,) * 9)
    assert [name for name in (b"a", b"c", b"d", b"e") if known.find(name)] == [b"d", b"e"]
    keys = {
        calibration_key(Caller(name="x", prefix_salt=salt), [1, 2], options)
        for salt in ("a", "b")
        for options in ([[3], [4]], [[3, 4]])
    }
    assert len(keys) == 4


def test_of_those_who_ask_at_once_one_measures() -> None:
    """Whoever fails or goes away leaves it to the next, and only those who give way wait for one who does."""
    begun: list[str] = []

    async def ask(known: Calibrations, name: str, caller: Caller, may_end: asyncio.Event) -> tuple[float, ...]:
        async def measure() -> tuple[float, ...]:
            begun.append(name)
            await may_end.wait()
            if name == "fails":
                raise StepError("broken on purpose")
            return (float(len(begun)),)

        return await known.get(b"key", caller, measure)

    async def main() -> None:
        known, ends, never, me = Calibrations(), asyncio.Event(), asyncio.Event(), Caller(name="me")
        names = ("goes", "fails", "third", "fourth")
        tasks = [asyncio.create_task(ask(known, name, me, never if name == "goes" else ends)) for name in names]
        slow = [asyncio.create_task(ask(known, name, me.giving_way(), never)) for name in ("slow", "slower")]
        await asyncio.sleep(0)
        assert begun == ["goes", "slow"]
        tasks[0].cancel()
        ends.set()
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in told[:2]] == [asyncio.CancelledError, StepError]
        assert begun == ["goes", "slow", "fails", "third"]
        assert told[2:] == [(4.0,), (4.0,)]
        slow[0].cancel()
        assert await slow[1] == (4.0,)
        assert not known._turns

    asyncio.run(main())


def test_the_inner_fields_that_openai_defines_are_in_the_table() -> None:
    known = {field.name for field in FIELDS_BY_ENDPOINT["/v1/decisions"]}
    hints = get_type_hints(params.DecisionCreateParams)
    assert {name for name in known if "." not in name and "[" not in name} - {"model"} == hints.keys() - {"model"}
    for item in get_args(params.InputUnionMember1):
        assert {f"input[].{name}" for name in get_type_hints(item)} <= known
    for question in get_args(params.Question):
        assert {f"questions[].{name}" for name in get_type_hints(question)} <= known
    own = {"input[].": InputItem, "questions[].": DecisionQuestion}
    own |= {"questions[].choices[].": DecisionChoice, "questions[].levels[].": DecisionLevel}
    for prefix, model in own.items():
        assert {f"{prefix}{name}" for name in model.model_fields} <= known
    assert {f"questions.*.{name}" for name in SystemOneQuestion.model_fields} <= {
        field.name for field in FIELDS_BY_ENDPOINT["/v1/systemone"]
    }
    assert get_origin(hints["questions"]) is not None
