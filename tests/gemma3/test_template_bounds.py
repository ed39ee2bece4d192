"""The sandbox of chat templates: what transformers gives them, what is out of reach, and where a rendering ends."""

import json
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from gemma3.errors import ChatTemplateError
from gemma3.text.chat_template import ChatTemplate, TemplateFailureError
from gemma3.text.template_budget import MAX_CHARS, MAX_STEPS
from gemma3.text.template_environment import TemplateRefusalError

MESSAGES = [{"role": "user", "content": "H\u00ef <b> & 'x'\n\ty"}, {"role": "assistant", "content": "Ho"}]
TOOL = {"type": "function", "function": {"name": "f\u00e9", "parameters": {"b": [1, None, True], "a": {"z": "<"}}}}


def compiled(text: str, mark: Callable[[str], str] = lambda text: text) -> ChatTemplate:
    return ChatTemplate(text, source="a.jinja", mark=mark)


def render(text: str, **variables: Any) -> str:
    given = {"messages": MESSAGES, "tools": None, "documents": None, "add_generation_prompt": True}
    return compiled(text).render(given | variables)


@pytest.mark.parametrize(
    "text",
    [
        "  {% for m in messages %}\n  {%- if loop.first %} a{% endif %}\n{{ m.content }}\n{% endfor %}\n",
        "{{ tools[0] | tojson }}{{ tools | tojson(indent=2) }}{{ tools[0] | tojson(sort_keys=true, ensure_ascii=true) }}",
        "{{ tools | tojson(separators=(',', ':')) }}{{ messages[0] | string }}{{ messages | length }}{{ none }}{{ x }}",
        "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
        "{% generation %}{{ messages[1].content }}{% endgeneration %}|",
        "{% for m in messages %}{% generation %}a{% endgeneration %}{% endfor %}",
        "{% set ns = namespace(a=1) %}{% for m in messages if m.role == 'user' %}{% set ns.a = ns.a + 1 %}{% endfor %}{{ ns.a }}",
        "{% macro f(x, y=2) %}{{ x ~ y ~ none ~ 1.5 }}{% endmacro %}{{ f('a') }}{{ f(3, y='z')|trim }}{{ dict(a=1).a }}",
        "{% for m in messages recursive %}{{ m.role }}{% if loop.depth0 < 2 %}{{ loop(messages) }}{% endif %}{% endfor %}",
        "{{ messages | map(attribute='role') | join(', ') }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
        "{{ messages[0].content | upper | replace('X', 'y') | trim | e }}{{ messages[0].content.split('\\n')[0].strip() }}",
        "{{ '%s-%05d' % ('a', 7) }}{{ '%s' | format(3) }}{{ '{:>5}{a}'.format('x', a=1) }}{{ 'a' * 3 }}{{ 7 // 2 }}{{ 2 ** 8 }}",
        "{{ 'abc'[::-1] }}{{ 'a,b'.split(',') | last }}{{ 'x'.center(5) }}{{ 'a\\nb' | indent(2) }}",
        "{{ [1, 2] | sum }}{{ ['a'] * 2 }}",
        "{% macro outer() %}{{ caller('in') }}{% endmacro %}{% call(x) outer() %}{{ x }}{% endcall %}",
        "{% set text %}{% for m in messages %}{{ m.content }}{% endfor %}{% endset %}{{ text | length }}{{ text == '' }}",
        "{% filter upper %}{{ messages[1].content }}{% endfilter %}{{ messages[0].get('name', 'nobody') }}",
        "{{ messages[-1]['content'] + '\\n' + messages[0].items() | list | string }}{{ 'a' in messages[0] }}{{ (1, 2) + (3,) }}",
        "{%- for m in messages %}{%- for c in m.content %}{{ c if c is string }}{{ loop.index }}{%- endfor %}{%- endfor %}",
        "{{ messages | tojson | length }}{{ 'a' | default('b') }}{{ undefined_name | default('d') }}{{ [3, 1] | sort | first }}",
    ],
)
def test_templates_render_as_in_transformers(text: str) -> None:
    expected, _ = render_jinja_template([MESSAGES], tools=[TOOL], chat_template=text, add_generation_prompt=True)
    assert render(text, tools=[TOOL]) == expected[0]


def test_the_time_of_day() -> None:
    assert re.fullmatch(r"20\d\d-\d\d", render("{{ strftime_now('%Y-%m') }}"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "steps"),
        ("{% for i in range(100000) %}{% for j in range(100000) if false %}{% endfor %}{% endfor %}", "steps"),
        ("{% for i in range(100000) %}{% set x = range(100000) | list %}{% endfor %}", "steps"),
        (
            "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "makes a value",
        ),
        (
            "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
            "makes a value",
        ),
        (
            "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
            "writes",
        ),
        (
            "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
            "makes a value",
        ),
        ("{{ 'a' * 10 ** 9 }}", "steps"),
        ("{{ [0] * 10 ** 9 }}", "steps"),
        ("{{ 10 ** (10 ** 10) }}", "bits"),
        ("{{ 'a' | center(10 ** 9) }}", "fills up"),
        ("{{ 'a'.ljust(10 ** 9) }}", "fills up"),
        ("{{ 'a\\nb' | indent(10 ** 9) }}", "steps|fills up"),
        ("{{ tools | tojson(indent=10 ** 9) }}", "fills up"),
        ("{{ '%999999999d' % 1 }}{{ '%*d' }}", "width"),
        ("{{ '%999999999d' | format(1) }}", "width"),
        ("{{ '{:999999999}'.format(1) }}", "width"),
        ("{{ '{:{w}}'.format(1, w=10 ** 9) }}", "width"),
        ("{{ '%*d' % (10 ** 9, 1) }}", "width"),
        ("{{ ('a' * 10 ** 6).replace('', 'b' * 10 ** 6) }}", "steps|makes"),
        ("{{ ('a' * 10 ** 6) | replace('', 'b' * 10 ** 6) }}", "steps|makes"),
        ("{{ ('b' * 10 ** 6).join(['a'] * 10 ** 5) }}", "steps|makes"),
        ("{{ (['a' * 10 ** 6] * 10 ** 5) | map('upper') | join }}", "steps|makes"),
        ("{{ ([[0] * 10 ** 4] * 10 ** 4) | sum(start=[]) }}", "steps|makes"),
        ("{% for i in range(100000) %}{{ 'abcdefgh' * 1000 }}{% endfor %}", "writes"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested too deeply"),
        ("{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}", "nested too deeply"),
        ("{{ range(10 ** 9) }}", "Range too big"),
    ],
)
def test_a_rendering_without_end_ends(text: str, why: str) -> None:
    """By counting, so at the same place on every machine; the time it takes is the tests' own limit."""
    with pytest.raises(TemplateFailureError, match=rf"^line 1: .*({why})") as caught:
        render(text)
    assert "\n" not in str(caught.value)


def test_the_literal_text_of_a_loop_counts() -> None:
    with pytest.raises(TemplateFailureError, match=f"takes more than {MAX_STEPS:,} steps"):
        render("{% set x %}{% for i in range(100000) %}" + "abcdefgh" * 1000 + "{% endfor %}{% endset %}")


def test_a_budget_is_for_one_rendering_alone() -> None:
    """Each rendering begins anew, and threads do not spend each other's."""
    template = compiled("{% for i in range(n) %}{{ ' ' * 1000 }}{% endfor %}")
    num = MAX_CHARS // 1000 * 2 // 3
    sizes: list[int] = []
    threads = [threading.Thread(target=lambda: sizes.append(len(template.render({"n": num})))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [num * 1000] * 3
    assert template.render({"n": 1}) == " " * 1000


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__['sys'] }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(a=1) }}",
        "{{ messages[0].pop('role') }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os.environ }}",
        "{% extends 'a' %}",
        "{{ ''|attr('__class__')|string + 1 }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "{{ namespace(__init__=1) }}",
        "{{ 'a'.encode() }}",
        "{{ lipsum() }}",
        "{{ open('/etc/passwd') }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self._TemplateReference__context.environment.step.__func__ }}",
    ],
)
def test_nothing_is_in_reach(text: str) -> None:
    """As in transformers' sandbox, and no method that makes other characters."""
    with pytest.raises(TemplateFailureError):
        render(text)


def test_words_of_refusals_are_one_line() -> None:
    with pytest.raises(TemplateRefusalError, match=r"^Roles must alternate$"):
        render("\n{{ raise_exception('Roles\n must  alternate') }}")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a\n{% if %}", "a.jinja, line 2: Expected an expression"),
        ("\n\n{{ x | nofilter }}", "a.jinja, line 3: No filter named 'nofilter'"),
        ("{% for m in messages %}", "a.jinja, line 1: Unexpected end of template"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "a.jinja is no chat template: it is nested too deeply"),
        ("{% if 1 %}" * 300 + "{% endif %}" * 300, "a.jinja is no chat template: "),
        ("{% generation %}", "a.jinja, line 1: Unexpected end of template"),
    ],
)
def test_what_is_no_template(text: str, error: str) -> None:
    with pytest.raises(ChatTemplateError, match=f"^{re.escape(error)}") as caught:
        compiled(text)
    assert "\n" not in str(caught.value)


def test_errors_name_the_line() -> None:
    for text in ("a\nb\n{{ messages[0].x.y }}", "\n{% set a = 1 %}\n{{ messages[0].content + a }}"):
        with pytest.raises(TemplateFailureError, match=r"^line 3: "):
            render(text)


def test_text_that_a_template_writes_is_marked_and_text_that_it_looks_for_is_not() -> None:
    text = (
        "<x>{{ '<x>' }}{% if messages[0].content == '<x>' or '<x>' in messages[0].content %}{{ '<x>' ~ 'b' }}{% endif %}"
        "{{ messages[0].content.split('<x>')[0] }}{{ messages[0].content | replace('<x>', '<x>') }}"
        "{{ messages[0].content in ['<x>', 'b'] }}{{ messages[0].content is eq('<x>') }}{{ ['<x>'] | join }}"
    )
    rendered = compiled(text, lambda text: text.replace("<x>", "#")).render({"messages": [{"content": "a<x>"}]})
    assert rendered == "###baa#FalseFalse#"
    assert json.loads(compiled("{{ ['<x>'] | tojson }}", lambda text: text.replace("<x>", "#")).render({})) == ["#"]
