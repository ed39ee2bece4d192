"""What one request does to everybody else: the longest time it kept the event loop, its memory and its CPU time.

    python benchmarks/bench_event_loop.py [--rounds 3] [--only WORDS]

Serves the real tokenizer and a scripted model in a process of its own, whose event loop is watched by a coroutine that wants to
run every millisecond; what other programs take from the process does not count. Each kind of request is sent alone; a line has
the least of all rounds: the longest block in milliseconds, the peak memory added, the same per byte of body, the seconds of CPU.
The last lines are 150 unfinished bodies at once.
"""

import argparse
import asyncio
import http.client
import json
import multiprocessing
import socket
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from threading import Thread

from event_loop_requests import MODEL, requests

from engine.async_engine import AsyncLLMEngine
from engine.engine_options import EngineOptions
from engine.loading import load_engine
from engine.outputs import FinishReason, RequestOutput, SequenceDelta, TokenLogprob
from engine.sampling_params import SamplingParams
from openai_api.run import ServerProcess
from openai_api.settings import ServerSettings

MIB = 1024 * 1024


class ScriptedEngine(AsyncLLMEngine):
    """The real tokenizer; the answer is the last token of the prompt, again and again, with made-up log probabilities."""

    async def generate(
        self, request_id: str, prompt_token_ids: Sequence[int], params: SamplingParams, **_others: object
    ) -> AsyncGenerator[RequestOutput, None]:
        yield await asyncio.to_thread(output, request_id, prompt_token_ids, params)


def output(request_id: str, prompt_token_ids: Sequence[int], params: SamplingParams) -> RequestOutput:
    ids = (prompt_token_ids[-1],) * (params.max_tokens or 0)
    logprobs = logprobs_of(ids, params.logprobs)
    deltas = tuple(
        SequenceDelta(index, " so" * len(ids), ids, logprobs, FinishReason.LENGTH) for index in range(params.n)
    )
    prompt = logprobs_of(prompt_token_ids[1:], params.prompt_logprobs)
    return RequestOutput(
        request_id,
        deltas,
        finished=True,
        num_prompt_tokens=len(prompt_token_ids),
        prompt_logprobs=None if prompt is None else (None, *prompt),
    )


def logprobs_of(token_ids: Sequence[int], num_top: int | None) -> tuple[TokenLogprob, ...] | None:
    if num_top is None:
        return None
    return tuple(TokenLogprob(i, -0.1234567, tuple((1000 + n, -0.5 - n) for n in range(num_top))) for i in token_ids)


class WatchedServer(ServerProcess):
    """A server whose event loop notes its longest delay."""

    longest_s = 0.0

    async def _serve(self) -> None:
        watching = asyncio.create_task(self._watch())
        await super()._serve()
        watching.cancel()

    async def _watch(self) -> None:
        while True:
            began_s, cpu_s = time.perf_counter(), time.process_time()
            await asyncio.sleep(0.001)
            late_s = min(time.perf_counter() - began_s - 0.001, time.process_time() - cpu_s)
            self.longest_s = max(self.longest_s, late_s)


def serve(listener: socket.socket, pipe: Connection) -> None:
    """Answer each message of ``pipe`` with what happened since the last one."""
    options = EngineOptions(served_model_name=MODEL)
    server = WatchedServer(ScriptedEngine(lambda: load_engine(options)), ServerSettings(), listener)

    def report() -> None:
        while pipe.recv():
            pipe.send((server.longest_s * 1000, memory("VmHWM"), memory("VmRSS"), time.process_time()))
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # the peak begins anew
            server.longest_s = 0.0

    Thread(target=report, daemon=True).start()
    server.run()


def memory(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


def send(port: int, path: str, body: bytes | None) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        try:
            connection.request("POST" if body else "GET", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
        except (BrokenPipeError, ConnectionResetError):
            return 0
        response.read()
        return response.status


def measure(name: str, path: str, body: bytes | None, rounds: int, port: int, pipe: Connection) -> None:
    """Print one line."""
    longest_ms, peaks, cpu_s, status = [], [], [], 0
    for _ in range(rounds):
        _, _, before, cpu_before_s = asked(pipe)
        status = send(port, path, body)
        time.sleep(0.05)
        worst_ms, peak, _, cpu_after_s = asked(pipe)
        longest_ms.append(worst_ms)
        peaks.append(max(0, peak - before))
        cpu_s.append(cpu_after_s - cpu_before_s)
    ratio = f"{min(peaks) / len(body):6.1f}" if body else "     -"
    print(f"{name:30} {status:4} {min(longest_ms):8.1f} {min(peaks) / MIB:8.1f} {ratio} {min(cpu_s):8.2f}", flush=True)


def asked(pipe: Connection) -> tuple[float, int, int, float]:
    pipe.send("report")
    return pipe.recv()


def unfinished(port: int, pipe: Connection, num: int = 150) -> None:
    """Bodies of 4 MiB without their last byte."""
    before = asked(pipe)[2]
    head = f"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {4 * MIB}\r\n\r\n"
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(num)]
    for connection in connections:
        connection.settimeout(1)
        try:
            connection.sendall(head.encode() + b"x" * (4 * MIB - 1))
        except OSError:
            continue  # refused, or not read any further
    time.sleep(1)
    worst_ms, peak, held, _ = asked(pipe)
    for connection in connections:
        connection.close()
    time.sleep(1)
    after = asked(pipe)[2]
    print(
        f"{num} unfinished bodies: peak +{(peak - before) / MIB:.0f} MiB, held +{(held - before) / MIB:.0f} MiB, "
        f"closed +{(after - before) / MIB:.0f} MiB, longest block {worst_ms:.1f} ms"
    )


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--only", default="", help="kinds whose name has these words")
    args = flags.parse_args()
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    port = listener.getsockname()[1]
    pipe, other = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(listener, other), daemon=True)
    process.start()
    while send(port, "/health", None) != 200:
        time.sleep(0.1)
    print(f"{'kind of request':30} {'':4} {'block ms':>8} {'+MiB':>8} {'x body':>6} {'CPU s':>8}")
    for name, (path, make) in requests().items():
        if args.only in name:
            value = make()
            if isinstance(value, dict):
                value = json.dumps(value, ensure_ascii=False).encode()
            assert value is None or isinstance(value, bytes)
            measure(name, path, value, args.rounds, port, pipe)
    if args.only in "unfinished":
        unfinished(port, pipe)
    process.terminate()


if __name__ == "__main__":
    main()
