"""An agent's loop with one tool: the model asks for it, the program calls it, the model answers.

    gemma3-server serve
    python examples/agent.py "Is it raining in Oslo?"

The base model learns from two conversations that it is shown when to call, and what to make of the
result; a tuned one needs none. Needs: pip install openai
"""

import json
import sys
from typing import Any

from openai import OpenAI

MAX_CALLS = 4
WEATHER = {"Oslo": ("rain", 8), "Rome": ("clear", 21), "London": ("rain", 12)}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def get_weather(city: str) -> dict[str, object]:
    """The tool; a real one would ask somebody."""
    sky, degrees = WEATHER.get(city, ("clear", 15))
    return {"sky": sky, "degrees": degrees}


def shown(number: int, question: str, city: str, answer: str) -> list[dict[str, Any]]:
    """A conversation as it should be."""
    function = {"name": "get_weather", "arguments": json.dumps({"city": city})}
    call_id = f"call_{number}"
    return [
        {"role": "user", "content": question},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": call_id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": call_id, "content": json.dumps(get_weather(city))},
        {"role": "assistant", "content": answer},
    ]


def main() -> int:
    question = sys.argv[1] if len(sys.argv) > 1 else "Is it raining in Oslo?"
    url = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8000/v1"
    messages = [
        *shown(1, "What is the weather in Rome?", "Rome", "It is clear in Rome, at 21 degrees."),
        *shown(2, "Do I need an umbrella in London?", "London", "It is raining in London, at 12 degrees."),
        {"role": "user", "content": question},
    ]
    with OpenAI(base_url=url, api_key="none") as client:
        model = client.models.list().data[0].id
        for _ in range(MAX_CALLS):
            answer = client.chat.completions.create(model=model, messages=messages, tools=TOOLS, temperature=0)
            message = answer.choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            if not message.tool_calls:
                print((message.content or "").strip())
                return 0
            for call in message.tool_calls:
                print(f"{call.function.name}({call.function.arguments})", file=sys.stderr)
                result = get_weather(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)})
    print("The model asks for the tool again and again.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
