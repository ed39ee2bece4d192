"""What the benchmarks of structured output ask for: support messages to fields, and labels to choose from."""

import json
from collections.abc import Sequence

NAMES = ("Amara Okafor", "Tomas Lindqvist", "Ingrid Solheim", "Peter Novak", "Maria Rossi", "Luis Ortega", "Mary Jones")
CITIES = ("Lagos", "Gothenburg", "Stavanger", "Prague", "Rome", "Madrid", "London", "Toronto", "Osaka")
PRODUCTS = ("desk lamp", "coffee machine", "garden chair", "wool blanket", "bicycle pump")
ENUMS = {
    "channel": ("e-mail", "telephone", "letter"),
    "topic": ("payment", "delivery", "warranty", "cancellation"),
    "priority": ("low", "normal", "high"),
    "language": ("English", "German", "Spanish"),
}
STRINGS = ("customer", "city", "product", "order_number")
SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string", "maxLength": 40} for name in STRINGS}
    | {name: {"enum": list(values)} for name, values in ENUMS.items()},
    "required": [*STRINGS, *ENUMS],
    "additionalProperties": False,
}
LABELS = tuple(
    f"{subject} {event}"
    for subject in ("card", "account", "transfer", "top-up", "refund", "exchange rate", "identity")
    for event in (
        "arrival",
        "blocked",
        "cancelled",
        "declined",
        "delayed",
        "fee",
        "limit",
        "lost",
        "pending",
        "wrong",
        "ok",
    )
)
"""77, as many as a well-known data set of banking questions has."""


def fields_of(number: int) -> dict[str, str]:
    """The answer to message ``number``."""
    strings = (NAMES[number % 7], CITIES[number % 9], PRODUCTS[number % 5], f"{4711 + 31 * number}-{number % 10}")
    enums = {name: values[number % len(values)] for name, values in ENUMS.items()}
    return dict(zip(STRINGS, strings, strict=True)) | enums


def message(number: int) -> str:
    fields = fields_of(number)
    return (
        f"{fields['customer']} from {fields['city']} writes by {fields['channel']} in {fields['language']}, with"
        f" {fields['priority']} priority, about the {fields['topic']} of a {fields['product']}, order"
        f" {fields['order_number']}."
    )


def extraction_prompt(number: int) -> str:
    """Two examples, then message ``number``; the answer is the rest of the line."""
    shown = "".join(f"Message: {message(i)}\nJSON: {json.dumps(fields_of(i))}\n\n" for i in (101, 102))
    return f"{shown}Message: {message(number)}\nJSON:"


def lark_choice(labels: Sequence[str]) -> str:
    """A grammar of the labels alone, as the server makes one of ``structured_outputs.choice``."""
    return f"start: CHOICE\nCHOICE: {' | '.join(map(json.dumps, labels))}"


def new_rows(first: int, num_rows: int) -> list[dict[str, str]]:
    """Rows ``[first, first + num_rows)`` of a table; no two texts share more than their first words, so no cache helps."""
    return [{"text": f"{number}: {message(number)}"} for number in range(first, first + num_rows)]
