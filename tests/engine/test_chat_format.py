"""Which form a checkpoint's conversations get, what the log says of it, and which templates are
refused at the start.
"""

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.errors import RequestError
from engine.loading import LoadedEngine
from gemma3.errors import ChatTemplateError
from gemma3.text.chat import ChatStyle, Message, ToolCall, render_chat
from gemma3.text.tool_json import GOOGLES_JSON
from tests.engine.engines import load, tiny_checkpoint
from tests.gemma3 import tiny
from tests.gemma3.chat_templates import (
    ALPACA,
    CHATML,
    FUNCTION_GEMMA,
    GEMMA_SYSTEM,
    INSTRUCT,
    LIST_FORM,
    TOOLS,
    tokenizer_json,
)

HI = [Message("user", "Hi")]
# Google's conditions in other words: an own spelling, comments, and a check that they do not have.
GEMMA_REWRITTEN = """{#- turns of Gemma 3 -#}
{%- if not messages %}{{ raise_exception('nothing was said') }}{% endif -%}
{{- bos_token -}}
{%- set has_system = messages[0].role == 'system' -%}
{%- for m in messages[1 if has_system else 0:] -%}
    {%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('Alternate!') }}{%- endif -%}
    {{- '<start_of_turn>' ~ ('model' if m.role == 'assistant' else m.role) ~ '\\n' -}}
    {%- if loop.first and has_system %}{{ messages[0].content ~ '\\n\\n' }}{% endif -%}
    {{- m.content.strip() ~ '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif -%}"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without a template; the vocabulary knows other control tokens, too."""
    folder = tiny_checkpoint(tmp_path_factory.mktemp("chat-format") / "model")
    config = json.loads((folder / "config.json").read_text())
    content = tokenizer_json()
    num_rows = max(token["id"] for token in content["added_tokens"]) + 1
    model = tiny.oracle_model({**{k: config[k] for k in _SIZES}, "vocab_size": num_rows}, 3)
    tiny.save_directory(folder, model)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


_SIZES = (
    "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim sliding_window "
    "query_pre_attn_scalar max_position_embeddings"
).split()


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    """The same files in a folder of the test's own."""
    path = tmp_path / "model"
    path.mkdir()
    for file in base.iterdir():
        (path / file.name).symlink_to(file)
    return path


def text_of(engine: LoadedEngine, messages: Sequence[Message] = HI, **flags: bool) -> str:
    return engine.tokenizer.decode(engine.render_chat(messages, **flags).token_ids, skip_special=False)


def load_with(folder: Path, template: str | None = None, **options: object) -> LoadedEngine:
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return load(folder, **options)


def test_another_template_is_followed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gemma3")
    engine = load_with(folder, CHATML)
    assert text_of(engine) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    said = [*HI, Message("assistant", "<|im_end|>Ho ")]
    flags = {"add_generation_prompt": False, "continue_final_message": True}
    assert text_of(engine, said, **flags).endswith("<|im_start|>assistant\n<|im_end|>Ho ")
    prompt = engine.render_chat(said, **flags)
    end = engine.tokenizer.token_to_id("<|im_end|>")
    assert (prompt.stop, prompt.stop_token_ids, prompt.token_ids.count(end)) == ((), (end, 1), 1)
    assert (engine.info.chat_template, engine.info.is_instruction_tuned) == (CHATML, True)
    line = "Chat: template (chat_template.jinja is not Gemma's own; contents as text; answers end with <|im_end|> or <eos>)"
    assert line in caplog.messages


def test_an_answer_ends_where_the_templates_turns_end(folder: Path) -> None:
    engine = load_with(folder, ALPACA)
    assert engine.render_chat(HI).stop_token_ids == (engine.tokenizer.eos_token_id,)
    engine = load_with(folder, ALPACA.replace("{{ eos_token }}", "\n\n"))
    prompt = engine.render_chat(HI)
    assert (prompt.stop, prompt.stop_token_ids) == (("\n\n### Instruction:",), (engine.tokenizer.eos_token_id,))


def test_a_quote_is_no_mark_of_an_end(folder: Path) -> None:
    engine = load_with(folder, "{{ bos_token }}{{ messages | tojson(indent=1) }}")
    assert engine.render_chat(HI).stop == ()
    assert load_with(folder, "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}").render_chat(
        HI
    ).stop == ("\nu:",)


def test_googles_own_text_needs_no_jinja(folder: Path, official_tokenizer_dir: Path) -> None:
    config = json.loads((official_tokenizer_dir / "tokenizer_config.json").read_bytes())
    (folder / "chat_template.jinja").write_text(config["chat_template"])
    code = (
        "import sys; from engine.loading import load_engine; from engine.engine_options import EngineOptions\n"
        "from gemma3.text.chat import Message\n"
        f"engine = load_engine(EngineOptions(model={str(folder)!r}, kv_cache_memory=64 << 20, threads=1))\n"
        "assert engine.chat_format.name == 'gemma-turns', engine.chat_format\n"
        "engine.render_chat([Message('user', 'Hi')])\n"
        "assert not {'gemma3.text.template_environment', 'gemma3.text.template_renderer'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (GEMMA_REWRITTEN, "gemma-turns"),
        (GEMMA_SYSTEM, "template"),
        (GEMMA_REWRITTEN.replace(".strip()", ""), "template"),
        (GEMMA_REWRITTEN.replace("'\\n\\n'", "'\\n'"), "template"),
        (GEMMA_REWRITTEN.replace("raise_exception('Alternate!')", "''"), "template"),
        (GEMMA_REWRITTEN + "{% if tools %}{{ tools }}{% endif %}", "template"),
        (GEMMA_REWRITTEN.replace("{{- bos_token -}}", ""), "template"),
    ],
)
def test_a_template_is_gemmas_if_it_renders_the_same(folder: Path, template: str, name: str) -> None:
    engine = load_with(folder, template)
    assert engine.chat_format.name == name
    assert engine.info.chat_template == template
    if name == "gemma-turns":
        messages = [*HI, Message("user", "again")]
        ours = render_chat(messages, engine.tokenizer, ChatStyle.GEMMA_TURNS)
        assert engine.render_chat(messages) == ours


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("gemma", "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"),
        ("transcript", "Assistant:"),
        ("FILE", "[INST] Hi [/INST]"),
    ],
)
def test_the_flag_overrides(folder: Path, tmp_path: Path, option: str, expected: str) -> None:
    file = tmp_path / "other.jinja"
    file.write_text(INSTRUCT)
    engine = load_with(folder, CHATML, chat_template=option.replace("FILE", str(file)))
    assert text_of(engine).endswith(expected)
    assert engine.info.chat_template == (INSTRUCT if option == "FILE" else CHATML)
    assert f"--chat-template {option}" in engine.chat_format.reason or option == "FILE"


def test_without_a_template_the_log_says_why(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gemma3")
    assert load(folder).info.is_instruction_tuned is False
    assert (
        "Chat: transcript (no chat template, and nothing says that the model was tuned; --chat-template" in caplog.text
    )
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 106]}')
    engine = load(folder)
    assert (engine.chat_format.name, engine.info.is_instruction_tuned) == ("gemma-turns", True)
    assert "Chat: gemma-turns (no chat template, but its answers end with <end_of_turn>; --chat-template" in caplog.text
    renamed = folder.rename(folder.parent / "my-gemma-IT")
    assert "name says 'it'" in load(renamed).chat_format.reason


def test_the_tools_template_is_for_tools(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(TOOLS)
    engine = load_with(folder, CHATML)
    tools = [{"type": "function", "function": {"name": "f<|im_end|>"}}]
    with_tools = engine.render_chat(HI, tools=tools).token_ids
    assert "# Tools" in engine.tokenizer.decode(with_tools, skip_special=False)
    assert "# Tools" not in text_of(engine)
    assert with_tools.count(engine.tokenizer.token_to_id("<|im_end|>") or -1) == 2


def test_google_s_prompt_shows_the_tools_where_no_template_does(folder: Path) -> None:
    """Behind the system's text; the call of an earlier answer reads as the prompt has it written."""
    call = Message("assistant", "", tool_calls=(ToolCall("f", '{"x": 1}'),))
    messages = [Message("system", "Be brief."), Message("user", "Hi"), call, Message("tool", "<end_of_turn>2")]
    (folder / "chat_template.jinja").write_text(CHATML.replace("tools", "tulips"))
    for choice in ("gemma", "transcript", None):
        engine = load(folder, chat_template=choice)
        prompt = engine.render_chat(messages, tools=[{"type": "function", "function": {"name": "f"}}])
        text = engine.tokenizer.decode(prompt.token_ids, skip_special=False)
        assert "Be brief.\n\nYou have access to functions." in text
        assert text.index('[{"name": "f"}]\n\nHi') < text.index('{"name": "f", "parameters": {"x": 1}}')
        assert engine.tool_form is GOOGLES_JSON
        assert text.index("<end_of_turn>2") > 0
        assert "tulips" not in text


def test_roles_are_as_the_template_takes_them(folder: Path) -> None:
    """Passed on as they are; a developer whom a template would leave out without a word is a system
    message.
    """
    messages = [Message("developer", "D"), *HI]
    assert "<|im_start|>developer\nD" in text_of(load_with(folder, CHATML), messages)
    assert "<start_of_turn>developer\nD" in text_of(load_with(folder, FUNCTION_GEMMA), messages)
    assert "<|im_start|>system\nD" in text_of(load_with(folder, TOOLS), messages)
    with pytest.raises(RequestError, match="refuses these messages: Only user and assistant roles") as caught:
        load_with(folder, INSTRUCT).render_chat(messages)
    assert caught.value.param == "messages"


def test_a_template_may_insist_on_a_system_message(folder: Path) -> None:
    """Then it is a request without one that is refused, not the checkpoint."""
    check = "{% if messages[0].role != 'system' %}{{ raise_exception('Say who I am.') }}{% endif %}"
    engine = load_with(folder, check + CHATML)
    assert text_of(engine, [Message("system", "S"), *HI]).startswith("<|im_start|>system\nS")
    with pytest.raises(RequestError, match=r"Say who I am\."):
        engine.render_chat(HI)
    assert "answers end with <|im_end|>" in engine.chat_format.reason


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{% for m in messages %}", "chat_template.jinja, line 1: Unexpected end of template"),
        (
            "\n{{ messages[0].content + x }}",
            "chat_template.jinja fails for one message of a user: line 2: 'x' is undefined",
        ),
        ("{{ bos_token }}Hello", "chat_template.jinja does not show the message of a user"),
        ("{{ raise_exception('no') }}", "chat_template.jinja fails for one message of a user: no"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "takes more than"),
        (
            "{% for m in messages %}{{ '<|im_' }}{{ 'start|>' + m.content }}{% endfor %}",
            "names of control tokens out of parts",
        ),
    ],
)
def test_what_cannot_be_followed_is_told_at_the_start(folder: Path, template: str, error: str) -> None:
    with pytest.raises(ChatTemplateError, match=r"^chat_template\.jinja") as caught:
        load_with(folder, template)
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff", "is not UTF-8"),
        (b" ", "is empty"),
        (b"{%", "line 1"),
    ],
)
def test_a_file_that_is_no_template(folder: Path, tmp_path: Path, content: bytes | None, error: str) -> None:
    file = tmp_path / "x.jinja"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ChatTemplateError, match=error) as caught:
        load(folder, chat_template=str(file))
    assert str(file) in str(caught.value)


def test_an_empty_name_of_a_file(folder: Path) -> None:
    with pytest.raises(ChatTemplateError, match="--chat-template is empty"):
        load(folder, chat_template="")


def test_flags_that_contradict_are_refused_in_every_form(folder: Path) -> None:
    for engine in (load_with(folder, CHATML), load(folder, chat_template="gemma")):
        with pytest.raises(RequestError, match="are both true") as caught:
            engine.render_chat(HI, continue_final_message=True)
        assert caught.value.param == "continue_final_message"
        with pytest.raises(RequestError, match="messages is empty"):
            engine.render_chat([])


@pytest.mark.parametrize("template", [None, CHATML, TOOLS])
def test_a_lone_surrogate_is_the_requests_error(folder: Path, template: str | None) -> None:
    engine = load_with(folder, template)
    for message in (Message("user", "\ud800"), Message("user", "a", name="\ud800")):
        if template is None and message.name:
            continue  # a name has no effect there
        with pytest.raises(RequestError, match="lone surrogate") as caught:
            engine.render_chat([message])
        assert caught.value.param == "messages"


def test_a_gguf_with_a_template(tmp_path: Path) -> None:
    model = tiny.oracle_model(tiny.random_shape(random.Random(3)), 3)
    template = {"tokenizer.chat_template": LIST_FORM, "tokenizer.ggml.padding_token_id": 2**32 - 1}
    metadata = tiny.gguf_metadata(tiny.config_of(model)) | template
    engine = load(tiny.save_gguf(tmp_path / "a.gguf", model, metadata=metadata))
    assert engine.chat_format.reason.startswith(
        "tokenizer.chat_template is not Gemma's own; contents as a list of parts"
    )
    assert text_of(engine).endswith("<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>assistant\n")


@pytest.mark.parametrize(
    ("template", "head", "behind"),
    [
        (TOOLS, '<tool_call>\n{"name": "f", "arguments": ', "}\n</tool_call>"),
        (FUNCTION_GEMMA, "<start_function_call>call:f", "<end_function_call>"),
        (CHATML, '{"name": "f", "parameters": ', "}"),
        (CHATML + "{{ tools }}", '{"name": "f", "parameters": ', "}"),
        (
            CHATML.replace("{{ m['content'] }}", "{{ m.content }}{% if tools %}{% endif %}{% for c in m.tool_calls %}[CALL] "
            '{"name":"{{ c.function.name }}","args":{{ c.function.arguments | tojson }}}[END]{% endfor %}'),
            '[CALL] {"name":"f","args":', "}[END]",
        ),
    ],
    ids=["hermes", "functiongemma", "without tools", "calls not shown", "own marks"],
)  # fmt: skip
def test_the_form_of_calls_is_what_the_template_writes(folder: Path, template: str, head: str, behind: str) -> None:
    form = load_with(folder, template).tool_form
    assert form.head("f") == head
    assert form.after_arguments == behind
    assert (form.instructions is None) is (template != CHATML)
