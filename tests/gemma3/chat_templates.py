"""Chat templates as people's checkpoints have them, and a small vocabulary that knows their control tokens."""

import json
from pathlib import Path
from typing import Any

from tests.gemma3 import tiny

SPECIAL = (
    *("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[INST]", "[/INST]"),
    *("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
)
# Added without the flag of a control token, as FunctionGemma and many fine-tunes have them.
FLAGLESS = (
    *(f"<{end}_function_{what}>" for what in ("declaration", "call", "response") for end in ("start", "end")),
    "<escape>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
)
_LETTERS = "\n user"
_MERGED = ("us", "er", "user", "\nu", "s\n", "\n\n")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ALPACA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}### Instruction:\n{{ m['content'] }}\n\n"
    "### Response:\n{% else %}{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% set all = messages %}{% for m in all %}{% set content = '<|start_header_id|>' + m['role'] + "
    "'<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LIST_FORM = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m.role }}\n{% for part in m.content %}"
    "{% if part.type == 'text' %}{{ part.text | trim }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
)
LIST_INDEX = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'][0]['text'] }}<|im_end|>\n{% endfor %}"
GEMMA_SYSTEM = """{{ bos_token }}
{%- set first = "You extract JSON.\n\n" -%}
{%- for m in messages -%}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + (first if loop.first else '') }}
    {{- m['content'] | trim }}{{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}
"""
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ m.content + eos_token }}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
THINKING = """{%- for m in messages %}
    {%- set content = m.content %}
    {%- if m.role == 'assistant' and '</think>' in content %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' ~ m.role ~ '\\n' ~ content | replace('\\t', ' ') ~ '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"""
# No name of a role's token stands in it.
ROLE_IN_BRACKETS = (
    "{% for m in messages %}{% if m.role in ['system', 'user', 'assistant'] %}{{ '<|' + m['role'] + '|>' + m.content }}"
    "{% if m.role == 'user' %}{{ m.name or '' }}{% endif %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|{{ 'assistant' }}|>{% endif %}"
)
TOOLS = """{%- if tools %}<|im_start|>system
{{ messages[0].content if messages[0].role == 'system' }} # Tools
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}<|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- for m in messages %}
    {%- if m.role == 'user' %}{{ '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}
    {%- elif m.role == 'assistant' %}<|im_start|>assistant
{{ m.content or '' }}
        {%- for call in m.tool_calls or [] %}
<tool_call>
{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}
</tool_call>
        {%- endfor %}<|im_end|>
{% elif m.role == 'tool' %}<|im_start|>user
<tool_response>{{ m.name or m.tool_call_id }}: {{ m.content }}</tool_response><|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
FUNCTION_GEMMA = """{%- macro value(v) -%}
    {%- if v is string -%}{{ '<escape>' + v + '<escape>' }}
    {%- elif v is mapping -%}
        {{- '{' }}{% for k, each in v | dictsort %}{{ k }}:{{ value(each) }}{{ ',' if not loop.last }}{% endfor %}{{ '}' -}}
    {%- else -%}{{ v | tojson }}{%- endif -%}
{%- endmacro -%}
{{ bos_token }}
{%- if tools or messages[0].role in ['system', 'developer'] -%}
    {{ '<start_of_turn>developer\n' }}{{ messages[0].content | trim if messages[0].role in ['system', 'developer'] }}
    {%- for tool in tools or [] -%}
        {{ '<start_function_declaration>declaration:' + tool.function.name + value(tool.function.parameters) -}}
        {{ '<end_function_declaration>' }}
    {%- endfor -%}
    {{ '<end_of_turn>\n' }}
{%- endif -%}
{%- for m in messages if m.role not in ['system', 'developer'] -%}
    {%- if m.role == 'tool' -%}
        {{ '<start_function_response>response:' ~ (m.name or 'tool') ~ value({'value': m.content}) }}
        {{- '<end_function_response>' }}
    {%- else -%}
        {{ '<start_of_turn>' + ('model' if m.role == 'assistant' else 'user') + '\n' + m.content | trim }}
        {%- for call in m.tool_calls or [] -%}
            {{ '<start_function_call>call:' + call.function.name + value(call.function.arguments) }}
            {{- '<end_function_call>' }}
        {%- endfor -%}
        {{ '<end_of_turn>\n' }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"""

TEMPLATES = {
    "chatml": CHATML,
    "alpaca": ALPACA,
    "llama3": LLAMA3,
    "list-form": LIST_FORM,
    "list-index": LIST_INDEX,
    "gemma-system": GEMMA_SYSTEM,
    "instruct": INSTRUCT,
    "thinking": THINKING,
    "role-in-brackets": ROLE_IN_BRACKETS,
    "tools": TOOLS,
    "function-gemma": FUNCTION_GEMMA,
}


def tokenizer_json(special: tuple[str, ...] = SPECIAL, flagless: tuple[str, ...] = FLAGLESS) -> dict[str, Any]:
    """The byte tokenizer with more control tokens, a few letters, and pieces that merging makes of them."""
    content: dict[str, Any] = tiny.byte_tokenizer()
    vocab = content["model"]["vocab"]
    for piece in (*_LETTERS.replace(" ", "\u2581"), *_MERGED):
        vocab[piece] = len(vocab)
    pairs = [(piece[:i], piece[i:]) for piece in _MERGED for i in range(1, len(piece))]
    content["model"]["merges"] = [list(pair) for pair in pairs if all(part in vocab for part in pair)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for i, piece in enumerate((*special, *flagless), start=len(vocab)):
        content["added_tokens"].append({"id": i, "content": piece, **flags, "special": piece in special})
    return content


def write_tokenizer(folder: Path, **tokens: tuple[str, ...]) -> Path:
    """A folder with that tokenizer, which transformers and this project open."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(**tokens)))
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
