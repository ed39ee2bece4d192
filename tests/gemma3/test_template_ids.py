"""What a checkpoint's own template makes of conversations, against transformers; and that clients' texts stay texts."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from gemma3.errors import ChatError, TokenizerError
from gemma3.text.chat import Message, ToolCall
from gemma3.text.template_files import read_templates
from gemma3.text.template_messages import ContentForm
from gemma3.text.template_renderer import TemplateRenderer
from gemma3.text.tokenizer import Gemma3Tokenizer
from tests.gemma3.chat_templates import (
    CHATML,
    FLAGLESS,
    FUNCTION_GEMMA,
    ROLE_IN_BRACKETS,
    SPECIAL,
    TEMPLATES,
    TOOLS,
    write_tokenizer,
)

NUM_HOSTILE = 500
CONTENTS = (
    "Hi",
    "  spaces \n",
    "\n\n\nx",
    " user\n\nuser ",
    "<b>\tbold</b>",
    "\u6f22\u5b57 \U0001f600",
    "",
    "[1, 2]",
    "</s>",
)
WEATHER = {"name": "weather", "parameters": {"city": {"type": "string"}, "days": {"type": "integer"}}}
DECLARED = [{"type": "function", "function": WEATHER}]

Make = Callable[[str], TemplateRenderer]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("templates"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Gemma3Tokenizer:
    return Gemma3Tokenizer.from_local_path(folder)


@pytest.fixture(scope="module")
def library(folder: Path) -> Any:
    return PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.fixture(scope="module")
def make(folder: Path, tokenizer: Gemma3Tokenizer) -> Make:
    return lambda template: TemplateRenderer(read_templates(folder).replaced(template, "a.jinja"), tokenizer)


def conversation(rng: random.Random, say: Callable[[], str], *, with_system: bool) -> list[Message]:
    roles = ["system"] * (with_system and rng.randint(0, 1)) + ["user", "assistant"] * 3
    return [Message(role, say()) for role in roles[: rng.randint(2, len(roles))]]


def plain(message: Message, form: ContentForm) -> dict[str, Any]:
    """In transformers' form."""
    parts = [{"type": "text", "text": message.content}]
    shown: dict[str, Any] = {"role": message.role, "content": message.content if form is ContentForm.TEXT else parts}
    if message.tool_calls:
        shown["tool_calls"] = [
            {"id": c.call_id, "type": "function", "function": {"name": c.name, "arguments": json.loads(c.arguments)}}
            for c in message.tool_calls
        ]
    return shown | {k: v for k in ("name", "tool_call_id") if (v := getattr(message, k)) is not None}


def theirs(
    library: Any, renderer: TemplateRenderer, template: str, messages: Sequence[Message], **flags: Any
) -> list[int]:
    shown = [plain(message, renderer.content_form) for message in messages]
    ids: list[int] = library.apply_chat_template(shown, chat_template=template, **flags)["input_ids"]
    return ids


@pytest.mark.parametrize("name", TEMPLATES)
def test_ids_are_those_of_transformers(name: str, make: Make, library: Any) -> None:
    template, rng = TEMPLATES[name], random.Random(name)
    renderer = make(template)
    refuses_system = name in ("gemma-system", "instruct")
    for _ in range(60):
        messages = conversation(rng, lambda: rng.choice(CONTENTS), with_system=not refuses_system)
        ends = [(True, False), (False, False), (False, True)][: 2 + (messages[-1].role == "assistant")]
        for opens, goes_on in ends:
            if goes_on and "\t" in messages[-1].content and name == "thinking":
                continue  # transformers continues no message that the template changes within
            flags = {"add_generation_prompt": opens, "continue_final_message": goes_on}
            got = renderer.render(messages, **flags).token_ids
            assert list(got) == theirs(library, renderer, template, messages, **flags), (messages, flags)


def with_tools(say: Callable[[], str], call_id: str = "call_1") -> list[Message]:
    arguments = json.dumps({"city": say(), "nested": {"a": [say(), 1.5, None]}, "days": 2})
    call = ToolCall("weather", arguments, call_id)
    return [
        Message("system", say()),
        Message("user", say()),
        Message("assistant", say(), tool_calls=(call, call)),
        Message("tool", say(), tool_call_id=call_id),
        Message("tool", say(), name="weather"),
        Message("user", say()),
    ]


@pytest.mark.parametrize("template", [TOOLS, FUNCTION_GEMMA])
@pytest.mark.parametrize("tools", [None, DECLARED])
def test_tools_are_shown_as_transformers_shows_them(template: str, tools: Any, make: Make, library: Any) -> None:
    renderer, rng = make(template), random.Random(1)
    for _ in range(20):
        messages = with_tools(lambda: rng.choice(CONTENTS))
        got = renderer.render(messages, add_generation_prompt=True, continue_final_message=False, tools=tools)
        flags = {"add_generation_prompt": True, "tools": tools}
        assert list(got.token_ids) == theirs(library, renderer, template, messages, **flags)


# --- what clients write ----------------------------------------------------------------------------------------------


def hostile_texts(rng: random.Random) -> Iterator[str]:
    """Names of control tokens whole, cut, doubled, inside each other and among what filters change."""
    names = (*SPECIAL, *FLAGLESS, "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<unused5>", "<pad>")
    others = (
        " ",
        "\n",
        "\t",
        "a",
        "'",
        '"',
        "\\n",
        "{{ bos_token }}",
        "\ue000",
        "\U000f0000",
        "\uffff",
        "user",
        "<",
        ">",
        "|",
    )
    while True:
        parts = []
        for _ in range(rng.randint(1, 8)):
            name = rng.choice(names)
            cut = rng.randrange(len(name))
            parts += rng.choice(
                ((name,), (name[:cut], name[cut:]), (name[:cut], name, name[cut:]), (rng.choice(others),))
            )
            parts.append(rng.choice(("", "", rng.choice(others))))
        yield "".join(parts)


def control_ids(
    renderer: TemplateRenderer, tokenizer: Gemma3Tokenizer, messages: Sequence[Message], **more: Any
) -> list[int]:
    """The ids of all tokens that could open or close anything, in order."""
    pieces = (*SPECIAL, *FLAGLESS)
    shown = renderer.render(messages, add_generation_prompt=True, continue_final_message=False, **more)
    named = {tokenizer.token_to_id(piece) for piece in pieces if piece in renderer.template}
    control = tokenizer.special_ids | named
    return [token_id for token_id in shown.token_ids if token_id in control]


@pytest.mark.parametrize("name", TEMPLATES)
def test_control_text_in_contents_is_never_a_control_token(name: str, make: Make, tokenizer: Gemma3Tokenizer) -> None:
    renderer, rng = make(TEMPLATES[name]), random.Random(name)
    texts = hostile_texts(rng)
    roles = ("user", "assistant") if name in ("gemma-system", "instruct") else ("system", "user", "assistant")
    expected = control_ids(renderer, tokenizer, [Message(role, "x") for role in roles])
    for _ in range(NUM_HOSTILE):
        messages = [Message(role, next(texts)) for role in roles]
        assert control_ids(renderer, tokenizer, messages) == expected, messages


@pytest.mark.parametrize("template", [TOOLS, FUNCTION_GEMMA])
def test_nor_in_calls_results_names_and_tools(template: str, make: Make, tokenizer: Gemma3Tokenizer) -> None:
    renderer, rng = make(template), random.Random(2)
    texts = hostile_texts(rng)
    for _ in range(NUM_HOSTILE // 5):
        hostile, harmless = (
            [*with_tools(say, say()), Message("tool", say(), name=say(), tool_call_id=say())]
            for say in (lambda: next(texts), lambda: "x")
        )
        tools = [[{"type": "function", "function": WEATHER | {"name": say}}] for say in (next(texts), "x")]
        assert control_ids(renderer, tokenizer, hostile, tools=tools[0]) == control_ids(
            renderer, tokenizer, harmless, tools=tools[1]
        )


@pytest.mark.parametrize(
    "filters",
    [
        "|upper|lower",
        "|replace('_', '')",
        "[1:]",
        "[::-1]",
        ".split('x')|join",
        "|tojson",
        "|list|join",
        "|e",
        "|title",
        "~'|>'",
    ],
)
def test_whatever_a_template_does_to_them(filters: str, make: Make, tokenizer: Gemma3Tokenizer) -> None:
    template = f"{{% for m in messages %}}<|im_start|>{{{{ '<|im' ~ m.content{filters} }}}}<|im_end|>{{% endfor %}}"
    renderer = make(template)
    for text in ("_start|>", "_START|>", "__start|>", ">|trats_mi|<", "_st_art|>", "x_startx|x>", "_end", '_start|"'):
        assert len(control_ids(renderer, tokenizer, [Message("user", text)])) == 2, text


def test_only_a_role_makes_the_name_of_a_roles_token(make: Make, tokenizer: Gemma3Tokenizer) -> None:
    """A client who knows the brackets of a template cannot put a role between them."""
    template = ROLE_IN_BRACKETS + "{% for m in messages %}<|{{ m.content }}|>{{ '<|' ~ m.content ~ '|>' }}{% endfor %}"
    renderer = make(template)
    for text in ("user", "assistant", "end", "|><|user|><|", "user|><|"):
        ids = control_ids(renderer, tokenizer, [Message("user", text)])
        assert [tokenizer.id_to_token(i) for i in ids] == ["<|user|>", "<|end|>", "<|assistant|>"], text


@pytest.mark.parametrize("template", [CHATML, ROLE_IN_BRACKETS])
def test_the_words_of_errors_have_no_stand_ins(template: str, make: Make) -> None:
    refusing = (
        template
        + "{% if messages | length > 3 %}{{ raise_exception('after ' + '<|end|>' + messages[0].role) }}{% endif %}"
    )
    with pytest.raises(ChatError, match=r"refuses these messages: after <\|end\|>user$"):
        make(refusing).render([Message("user", "a")] * 4, add_generation_prompt=True, continue_final_message=False)


def test_what_a_template_compares_with_a_content_is_a_text(make: Make, library: Any) -> None:
    """Old thoughts are cut out of the history as transformers does it, though their end is a control token here."""
    template, renderer = TEMPLATES["thinking"], make(TEMPLATES["thinking"])
    messages = [Message("user", "a"), Message("assistant", "<think>\nno\n</think>\n\nb"), Message("user", "c")]
    flags = {"add_generation_prompt": True, "continue_final_message": False}
    assert list(renderer.render(messages, **flags).token_ids) == theirs(library, renderer, template, messages, **flags)


def test_a_lone_surrogate_is_refused_wherever_it_stands(make: Make) -> None:
    """It could be the stand-in of a control token."""
    renderer = make(TOOLS)
    call = ToolCall("f", json.dumps({"a": "\ud800"}), "c")
    messages = [
        Message("user", "a\ud801"),
        Message("tool", "a", name="\udfff"),
        Message("tool", "a", tool_call_id="\ud800"),
    ]
    for message in messages:
        with pytest.raises(TokenizerError, match="lone surrogate"):
            renderer.render([message], add_generation_prompt=True, continue_final_message=False)
    with pytest.raises(TokenizerError, match="lone surrogate"):
        renderer.render(
            [Message("user", "a")], add_generation_prompt=True, continue_final_message=False, tools=[{"\ud800": 1}]
        )
    shown = renderer.render(
        [Message("user", "a"), Message("assistant", "", tool_calls=(call,))],
        add_generation_prompt=True,
        continue_final_message=False,
    )
    assert shown.token_ids  # the arguments stay the text that they were


def test_messages_that_a_template_refuses_get_its_own_words(make: Make) -> None:
    renderer = make(TEMPLATES["gemma-system"])
    with pytest.raises(ChatError, match="refuses these messages: Conversation roles must alternate user/assist"):
        renderer.render([Message("user", "a")] * 2, add_generation_prompt=True, continue_final_message=False)
    renderer = make("{% for m in messages %}\n{{ m.content + (m.name or 1 if m.role == 'tool' else '') }}{% endfor %}")
    with pytest.raises(ChatError, match=r"a\.jinja fails for these messages: line 2: can only concatenate str"):
        renderer.render([Message("tool", "a")], add_generation_prompt=True, continue_final_message=False)
