"""Where a checkpoint keeps its chat templates: the files of a folder, the keys of a GGUF.

Owns which place wins, as transformers has it, and the special tokens that templates may name. Looks at
no template (``gemma3.text.template_renderer`` does). Read once, by any thread.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gemma3.errors import ChatTemplateError
from gemma3.files.gguf import GGUFFile
from gemma3.files.json_file import read_json_object_if_there

_MAX_BYTES = 1 << 20
_GGUF_KEY = "tokenizer.chat_template"
# What transformers' GemmaTokenizer has unless tokenizer_config.json says otherwise.
_SPECIAL_TOKENS = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
_GGUF_IDS = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


@dataclass(frozen=True, slots=True)
class ChatTemplates:
    """``by_name`` may be empty; ``source`` names the file.

    ``special_tokens()`` are the variables of a template that name control tokens, by their text or, in a
    GGUF, by their id. They are read when asked for: Gemma's own template needs none, and a megabyte of
    JSON takes 10 ms.
    """

    by_name: Mapping[str, str]
    source: str
    special_tokens: Callable[[], Mapping[str, str | int]]

    @property
    def default(self) -> str | None:
        """The text of the template for conversations without tools, or ``None`` where there is no template.

        Raises:
            ChatTemplateError: there are named templates, but no ``default`` among them.
        """
        if self.by_name and "default" not in self.by_name:
            names = ", ".join(sorted(self.by_name))
            raise ChatTemplateError(
                f"{self.source} has the chat templates {names:.80}, but none called 'default'; "
                "choose one with --chat-template FILE."
            )
        return self.by_name.get("default")

    def replaced(self, text: str, source: str) -> "ChatTemplates":
        """The same special tokens with another template."""
        return ChatTemplates({"default": text}, source, self.special_tokens)


def read_templates(folder: Path) -> ChatTemplates:
    """The templates of a checkpoint's folder.

    ``chat_template.jinja`` and ``additional_chat_templates/*.jinja`` go before
    ``tokenizer_config.json``, as in transformers; ``chat_template.json``, which it reads for
    processors only, comes last. An empty template is none.

    Raises:
        ChatTemplateError: a template cannot be read or is none.
        ConfigError: a JSON file cannot be read or is none.
    """
    files = [folder / "chat_template.jinja", *sorted(folder.glob("additional_chat_templates/*.jinja"))]
    found = {file.stem: text for file in files if file.is_file() and (text := read_text(file))}
    if found:
        by_name = {"default" if name == "chat_template" else name: text for name, text in found.items()}
        return ChatTemplates(by_name, files[0].name, partial(_special_tokens, folder))
    for name in ("tokenizer_config.json", "chat_template.json"):
        by_name = _named(read_json_object_if_there(folder / name).get("chat_template"), name)
        if by_name:
            return ChatTemplates(by_name, name, partial(_special_tokens, folder))
    return ChatTemplates({}, folder.name, partial(_special_tokens, folder))


def templates_of_gguf(file: GGUFFile) -> ChatTemplates:
    """``tokenizer.chat_template``, and with ``.NAME`` behind it the named ones."""
    by_name = {
        key.removeprefix(_GGUF_KEY).removeprefix(".") or "default": text
        for key, text in file.metadata.items()
        if (key == _GGUF_KEY or key.startswith(f"{_GGUF_KEY}.")) and isinstance(text, str) and text.strip()
    }
    ids = {name: file.metadata.get(f"tokenizer.ggml.{key}_token_id") for key, name in _GGUF_IDS.items()}
    special_tokens = _SPECIAL_TOKENS | {name: i for name, i in ids.items() if isinstance(i, int)}
    return ChatTemplates(by_name, _GGUF_KEY, lambda: special_tokens)


def read_text(file: Path) -> str:
    """The text of a template's file; ``""`` if it holds nothing but white space.

    Raises:
        ChatTemplateError: it cannot be read, is too large or not UTF-8.
    """
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ChatTemplateError(f"{file} has more than {_MAX_BYTES:,} bytes; it is no chat template.")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ChatTemplateError(f"the chat template {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ChatTemplateError(f"the chat template {file} is not UTF-8.") from None
    return text if text.strip() else ""


def _named(value: object, source: str) -> dict[str, str]:
    """A string is the default; a list of ``{"name", "template"}`` or an object names each."""
    if isinstance(value, str | None):
        return {"default": value} if value and value.strip() else {}
    if isinstance(value, list):
        entries = [entry if isinstance(entry, dict) else {} for entry in value]
        value = {str(entry.get("name")): entry.get("template") for entry in entries}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        allowed = 'a string or a list of {"name": ..., "template": ...}'
        raise ChatTemplateError(f"chat_template in {source} must be {allowed}.")
    return {name: text for name, text in value.items() if text.strip()}


def _special_tokens(folder: Path) -> Mapping[str, str | int]:
    """As transformers takes them: of files without ``added_tokens_decoder`` the older file goes first.

    ``null`` says nothing; some files write an object for a token.
    """
    config = read_json_object_if_there(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:
        config |= read_json_object_if_there(folder / "special_tokens_map.json")
    found = {name: value for name, value in config.items() if name.endswith("_token")}
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in found.items()}
    return {**_SPECIAL_TOKENS, **{name: text for name, text in texts.items() if isinstance(text, str)}}
