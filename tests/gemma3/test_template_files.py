"""Where chat templates come from, and which of several is taken, against transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from gemma3.errors import ChatTemplateError, ConfigError
from gemma3.files.gguf import GGUFFile
from gemma3.text.template_files import read_templates, templates_of_gguf
from tests.gemma3.chat_templates import write_tokenizer
from tests.gemma3.gguf_files import write_gguf

NAMED = [{"name": "default", "template": "named"}, {"name": "tool_use", "template": "for tools"}]


def change(folder: Path, **values: object) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def write(folder: Path, places: str) -> Path:
    write_tokenizer(folder)
    for place in places.split():
        if place == "config":
            change(folder, chat_template="from the config")
        elif place == "list":
            change(folder, chat_template=NAMED)
        elif place == "null":
            change(folder, chat_template=None)
        else:
            (folder / place).parent.mkdir(exist_ok=True)
            (folder / place).write_text('{"chat_template": "legacy"}' if place.endswith("json") else f"in {place}\r\nx")
    return folder


@pytest.mark.parametrize(
    "places",
    [
        "",
        "null",
        "config",
        "list",
        "chat_template.jinja",
        "config chat_template.jinja",
        "list chat_template.jinja",
        "config chat_template.json",
        "list chat_template.jinja additional_chat_templates/tool_use.jinja",
        "chat_template.jinja additional_chat_templates/rag.jinja additional_chat_templates/tool_use.jinja",
    ],
)
def test_the_place_that_wins_is_that_of_transformers(tmp_path: Path, places: str) -> None:
    folder = write(tmp_path / "model", places)
    theirs: Any = PreTrainedTokenizerFast.from_pretrained(folder).chat_template
    expected = theirs if isinstance(theirs, dict) else {} if theirs is None else {"default": theirs}
    assert read_templates(folder).by_name == expected


def test_a_processors_file_is_taken_where_nothing_else_is(tmp_path: Path) -> None:
    templates = read_templates(write(tmp_path, "chat_template.json"))
    assert (templates.default, templates.source) == ("legacy", "chat_template.json")


def test_named_templates_without_a_default(tmp_path: Path) -> None:
    templates = read_templates(write(tmp_path, "config additional_chat_templates/rag.jinja"))
    with pytest.raises(ChatTemplateError, match="has the chat templates rag, but none called 'default'; choose one"):
        assert templates.default


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_template_is_none(tmp_path: Path, text: str) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(text)
    change(tmp_path, chat_template=text)
    assert read_templates(tmp_path).default is None


@pytest.mark.parametrize("value", [3, ["x"], [{"name": "default"}], {"default": None}, [{"template": 1, "name": "a"}]])
def test_a_template_that_is_no_text(tmp_path: Path, value: object) -> None:
    write_tokenizer(tmp_path)
    change(tmp_path, chat_template=value)
    with pytest.raises(
        ChatTemplateError, match=r"chat_template in tokenizer_config\.json must be a string or a list of"
    ):
        read_templates(tmp_path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.json").write_text("[")
    with pytest.raises(ConfigError, match=r"chat_template\.json is not valid JSON"):
        read_templates(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff{{ messages }}")
    with pytest.raises(ChatTemplateError, match="is not UTF-8"):
        read_templates(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(ChatTemplateError, match="has more than 1,048,576 bytes"):
        read_templates(tmp_path)


def test_special_tokens_are_those_of_transformers(tmp_path: Path) -> None:
    """What the file names goes before Gemma's names; null is nothing; an object has the text inside."""
    write_tokenizer(tmp_path)
    change(tmp_path, eos_token="<|im_end|>", sep_token="[INST]", unk_token=None)
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path).special_tokens_map
    ours = read_templates(tmp_path).special_tokens()
    assert ours | theirs == ours
    assert (ours["eos_token"], ours["sep_token"], ours["unk_token"]) == ("<|im_end|>", "[INST]", "<unk>")
    change(tmp_path, eos_token={"content": "<|eot_id|>", "special": True})
    assert read_templates(tmp_path).special_tokens()["eos_token"] == "<|eot_id|>"
    (tmp_path / "special_tokens_map.json").write_text('{"bos_token": "<|im_start|>"}')
    assert read_templates(tmp_path).special_tokens()["bos_token"] == "<|im_start|>"
    change(tmp_path, added_tokens_decoder={})
    assert read_templates(tmp_path).special_tokens()["bos_token"] == "<bos>"


def test_a_gguf_has_keys(tmp_path: Path) -> None:
    metadata = {
        "tokenizer.chat_template": "plain",
        "tokenizer.chat_template.tool_use": "for tools",
        "tokenizer.chat_templates": ["tool_use"],
        "tokenizer.ggml.eos_token_id": 106,
    }
    write_gguf(tmp_path / "a.gguf", metadata, {})
    templates = templates_of_gguf(GGUFFile.open(tmp_path / "a.gguf"))
    assert templates.by_name == {"default": "plain", "tool_use": "for tools"}
    assert templates.special_tokens() == {
        "bos_token": "<bos>",
        "eos_token": 106,
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    }
