"""People who talk beside a batch of 10,000 rows: python benchmarks/bench_batch_beside.py [--rows 10000] [--talks 40]

One server with a data folder. Streams of 32 tokens, one after the other, alone and while the batch is computed: time to
the first token and between tokens. Then the batch alone, rows a second, beside the same rows that do not give way, sent
over 64 connections. The batch is cancelled in the end.
"""

import http.client
import json
import tempfile
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from bench_interference import Figures, Prompts, percentile, times_of_tokens
from common import line, parser, print_header, print_json
from compare_batch import loop_s
from serving import Server, server
from structured_tasks import LABELS, new_rows

ALONE_S = 15.0
ROWS_OVER_HTTP = 512


def ask(
    address: Server, method: str, path: str, body: bytes = b"", kind: str = "application/json"
) -> Mapping[str, Any]:
    connection: http.client.HTTPConnection = address.connect()
    connection.request(method, path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    content = json.loads(answer.read())
    connection.close()
    assert answer.status == 200, content
    return content


def started_batch(address: Server, num_rows: int) -> str:
    """Its id, when its rows are on their way."""
    shape = {"model": "m", "max_tokens": 200, "temperature": 0, "structured_outputs": {"choice": list(LABELS)}}
    rows = [
        {"custom_id": str(i), "method": "POST", "url": "/v1/completions"}
        | {"body": shape | {"prompt": f"Message: {row['text']}\nAnswer: "}}
        for i, row in enumerate(new_rows(0, num_rows))
    ]
    file = "".join(json.dumps(row) + "\n" for row in rows)
    form = (
        '--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b\r\nContent-Disposition: form-data; '
    )
    form += f'name="file"; filename="rows.jsonl"\r\n\r\n{file}\r\n--b--\r\n'
    file_id = ask(address, "POST", "/v1/files", form.encode(), "multipart/form-data; boundary=b")["id"]
    body = {"input_file_id": file_id, "endpoint": "/v1/completions", "completion_window": "24h"}
    batch_id: str = ask(address, "POST", "/v1/batches", json.dumps(body).encode())["id"]
    while num_done(address, batch_id) == 0:
        time.sleep(0.1)
    return batch_id


def num_done(address: Server, batch_id: str) -> int:
    batch = ask(address, "GET", f"/v1/batches/{batch_id}")
    assert batch["status"] in ("validating", "in_progress"), batch
    done: int = batch["request_counts"]["completed"]
    return done


def talk(address: Server, prompts: Prompts, name: str, num_talks: int) -> Figures:
    first_ms, between_ms = [], []
    for number in range(num_talks):
        time.sleep(0.05 + 0.01 * (number % 20))  # at every moment of a step
        sent_s = time.perf_counter()
        body = {"prompt": prompts.take(32), "max_tokens": 32, "temperature": 0, "stream": True}
        came_s = times_of_tokens(address, body)
        first_ms.append((came_s[0] - sent_s) * 1e3)
        between_ms += [(b - a) * 1e3 for a, b in pairwise(came_s)]
    return {f"first token {name}, ms": first_ms, f"between tokens {name}, ms": between_ms}


def rows_per_s(address: Server, batch_id: str) -> float:
    began, began_s = num_done(address, batch_id), time.perf_counter()
    time.sleep(ALONE_S)
    return (num_done(address, batch_id) - began) / (time.perf_counter() - began_s)


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--rows", type=int, default=10_000)
    flags.add_argument("--talks", type=int, default=40)
    args = flags.parse_args()
    bandwidth = print_header(args.threads, f"a batch of {args.rows} rows")
    prompts, figures = Prompts(), Figures()
    rows = new_rows(args.rows, ROWS_OVER_HTTP)
    with tempfile.TemporaryDirectory() as folder, server(args.threads, "--data-dir", folder) as ours:
        talk(ours, prompts, "warm", 3)
        figures |= talk(ours, prompts, "alone", args.talks)
        loop_s(ours, "choice", new_rows(2 * args.rows, 64), 64)
        figures["rows that do not give way, rows/s"] = [ROWS_OVER_HTTP / loop_s(ours, "choice", rows, 64)]
        batch_id = started_batch(ours, args.rows)
        figures["batch alone, rows/s"] = [rows_per_s(ours, batch_id)]
        figures |= talk(ours, prompts, "beside", args.talks)
        ask(ours, "POST", f"/v1/batches/{batch_id}/cancel")
    for what, share in (("first token", 0.95), ("between tokens", 0.5)):
        alone, beside = (percentile(figures[f"{what} {name}, ms"], share) for name in ("alone", "beside"))
        print(
            f"{what}, p{share * 100:.0f}: alone {alone:.1f} ms, beside the batch {beside:.1f} ms ({beside / alone:.2f}x)"
        )
    for name in ("rows that do not give way, rows/s", "batch alone, rows/s"):
        print(line(name.removesuffix(", rows/s"), figures[name], unit="rows/s"))
    print_json("bench_batch_beside", args.threads, bandwidth, figures)


if __name__ == "__main__":
    main()
