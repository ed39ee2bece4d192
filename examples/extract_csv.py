"""Fields out of a column of texts, by a JSON schema: a CSV file in, the same rows with more columns out.

    gemma3-server serve
    python examples/extract_csv.py orders.csv --column text --schema order.json -o fields.csv

A base model wants to see what you want: with ``--shots 2`` the first two rows, which have their fields
filled in, are shown as examples and copied. A row that fails has its reason in the column ``error``.
Needs: pip install openai
"""

import argparse
import csv
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai

NUM_AT_ONCE = 16  # the server computes them together


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", help="a CSV file with a header")
    parser.add_argument("--column", default="text", help="the column with the texts (default: %(default)s)")
    parser.add_argument("--schema", required=True, help="a file with the JSON schema of an object")
    parser.add_argument("--shots", type=int, default=0, help="the first rows are examples (default: %(default)s)")
    parser.add_argument("-o", "--output", default="-", help="a CSV file (default: the standard output)")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="none")
    args = parser.parse_args()
    with open(args.schema, encoding="utf-8") as file:
        schema = json.load(file)
    with open(args.rows, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    examples = [message for row in rows[: args.shots] for message in shown(row, args.column, schema)]
    with openai.OpenAI(base_url=args.url, api_key=args.api_key) as client, ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        model = client.models.list().data[0].id

        def extract(row: dict[str, str]) -> dict[str, Any]:
            question = {"role": "user", "content": row[args.column]}
            try:
                answer = client.chat.completions.create(
                    model=model,
                    messages=[*examples, question],
                    response_format={"type": "json_schema", "json_schema": {"name": "fields", "schema": schema}},
                    temperature=0,
                )
                return row | json.loads(answer.choices[0].message.content)
            except (openai.APIError, ValueError) as error:  # too long for max_tokens, perhaps
                return row | {"error": str(error)}

        write([*rows[: args.shots], *pool.map(extract, rows[args.shots :])], args.output)
    return 0


def shown(row: dict[str, str], column: str, schema: dict[str, Any]) -> list[dict[str, str]]:
    """A row as a question and its answer, in the schema's order and types."""
    kinds = {"integer": int, "number": float}
    fields = {
        name: kinds.get(field.get("type"), str)(row[name])
        for name, field in schema["properties"].items()
        if name in row
    }
    return [
        {"role": "user", "content": row[column]},
        {"role": "assistant", "content": json.dumps(fields, ensure_ascii=False)},
    ]


def write(rows: list[dict[str, Any]], name: str) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with open(name, "w", encoding="utf-8", newline="") if name != "-" else sys.stdout as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
