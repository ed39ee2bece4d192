"""Each line of the standard input to one of several teams, with how sure that is.

    gemma3-server serve
    echo "I cannot log in." | python examples/route.py payment delivery computer

``/v1/decisions`` reads how likely each option is as a whole; nothing is generated, and no example is
needed. Below ``--least`` a person should look. Needs: pip install httpx
"""

import argparse
import sys

import httpx


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("teams", nargs="+")
    parser.add_argument("--question", default="Which team should answer this message?")
    parser.add_argument("--least", type=float, default=0.6, help="of confidence (default: %(default)s)")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--api-key", default="none")
    args = parser.parse_args()
    choices = [{"value": team} for team in args.teams]
    question = {"type": "choice", "instructions": args.question, "choices": choices}
    headers = {"Authorization": f"Bearer {args.api_key}"}
    with httpx.Client(base_url=args.url, headers=headers, timeout=60) as client:
        for line in sys.stdin:
            if text := line.strip():
                response = client.post("/v1/decisions", json={"input": text, "questions": [question]})
                response.raise_for_status()
                answer = response.json()["answers"][0]
                team = answer["choice"] if answer["confidence"] >= args.least else "a person"
                print(f"{team}\t{answer['confidence']:.2f}\t{text}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
