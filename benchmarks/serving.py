"""Our server in a process of its own, and how the benchmarks ask it; also the server of llama.cpp."""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from common import ROOT


@dataclass(frozen=True)
class Server:
    host: str
    port: int
    pid: int

    def anonymous_mib(self) -> float:
        """Memory that only the server has: not the weights, which are mapped."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) / 1024

    def event_loop_s(self) -> float:
        """Seconds of processor time that the event loop's thread has had, which is the main one."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/schedstat").read_text().split()[0]) / 1e9

    def num_steps(self) -> int:
        """How many steps of the model there were since the start."""
        connection = self.connect()
        connection.request("GET", "/metrics")
        metrics = connection.getresponse().read().decode()
        connection.close()
        return int(float(metrics.partition("\ngemma3:iteration_tokens_total_count ")[2].split()[0]))

    def memory_mb(self) -> dict[str, float]:
        """``Rss``; ``Pss``, a share of what other processes have too; ``Private_Dirty``, what ends with the server."""
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()[1:]
        sizes = {name: int(size.split()[0]) * 1024 / 1e6 for name, _, size in (each.partition(":") for each in lines)}
        return {name: sizes[name] for name in ("Rss", "Pss", "Private_Dirty")}

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=3_600)

    def send(self, body: Mapping[str, object], key: str = "") -> socket.socket:
        """A connection on which a completion has been asked for."""
        encoded = json.dumps({"model": "m", "ignore_eos": True} | dict(body)).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(encoded)}\r\n\r\n"
        connection = socket.create_connection((self.host, self.port))
        connection.sendall(head.encode() + encoded)
        return connection

    def seconds(self, body: Mapping[str, object], key: str = "") -> float:
        """Until the answer is there; a note if it is none."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        encoded = json.dumps({"model": "m", "ignore_eos": True} | dict(body))
        began_s = time.perf_counter()
        connection = self.connect()
        connection.request("POST", "/v1/completions", encoded, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.status != 200:
            print(f"  answered {answer.status}: {content[:160]!r}")
        return time.perf_counter() - began_s


@contextlib.contextmanager
def server(num_threads: int, *flags: str) -> Iterator[Server]:
    """Our server in a process of its own, once it is ready."""
    command = [sys.executable, "main.py", "serve", "--port", "0", "--log-level", "error", "--served-model-name", "m"]
    command += ["--threads", str(num_threads), *flags]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        host, _, port = process.stdout.readline().strip().rpartition("//")[2].rpartition(":")
        yield Server(host, int(port), process.pid)
    finally:
        process.kill()
        process.communicate(timeout=60)


@contextlib.contextmanager
def llama_server(program: str, model: str, num_threads: int, num_slots: int) -> Iterator[int]:
    """llama.cpp's server once it is ready, with 1,024 tokens for each slot. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [program, "--model", model, "--port", str(port), "--threads", str(num_threads), "--no-webui"]
    command += ["--parallel", str(num_slots), "--ctx-size", str(1_024 * num_slots), "--log-disable"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not _is_healthy(port):
            assert process.poll() is None, f"{program} ended with status {process.returncode}"
            time.sleep(0.2)
        yield port
    finally:
        process.kill()
        process.wait(timeout=60)


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
