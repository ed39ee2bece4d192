"""``deploy/ray_data.py`` on a cluster of two nodes: the file of one machine, whoever is killed meanwhile."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from openai_api.machine_memory import memory_limit
from tests.engine.engines import tiny_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "deploy" / "ray_data.py"
NEEDED_BYTES = 6 << 30
MIB = 1 << 20
DEADLINE_S = 300

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'gemma3-270m-server[ray]'")
    limit = memory_limit()
    if limit is not None and limit.num_bytes < NEEDED_BYTES:
        pytest.skip(f"two Ray nodes and two engines need {NEEDED_BYTES >> 30} GiB of memory")
    path = tiny_checkpoint(tmp_path_factory.mktemp("ray") / "tiny")
    flags = ["--kv-cache-memory", "64MiB", "--max-num-seqs", "8", "--threads", "1", "--quiet"]
    return ["--model", str(path), *flags]


@contextmanager
def two_nodes() -> Iterator[Any]:
    """A head and one more, a CPU each."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 * MIB}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        cluster.add_node(**node)
        yield cluster
    finally:
        cluster.shutdown()


def program(cluster: Any, words: Sequence[object]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *map(str, words)],
        env=os.environ | {"RAY_ADDRESS": cluster.address},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def status_of(process: "subprocess.Popen[str]") -> int:
    try:
        _, told = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    print(told)
    return process.returncode


def on_one_machine(words: Sequence[object]) -> int:
    return subprocess.run([sys.executable, "main.py", "batch", *map(str, words)], cwd=ROOT, check=False).returncode


def table(path: Path, num_rows: int) -> Path:
    """Rows of all lengths, every 500th of which is none."""
    rng = random.Random(5)
    with path.open("w") as file:
        for number in range(num_rows):
            row = {"n": number, "text": "".join(rng.choices("abcdefg ", k=rng.randrange(1, 30)))}
            file.write("none\n" if number % 500 == 499 else f"{json.dumps(row)}\n")
    return path


def wait_for_parts(output: Path, num_parts: int, process: "subprocess.Popen[str]") -> None:
    """Until so many are there; Ray tells nobody of them."""
    deadline_s = time.monotonic() + DEADLINE_S
    while len(list(output.with_name(f"{output.name}.parts").glob("*/*.part"))) < num_parts:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s, "no parts come"
        time.sleep(0.02)


@pytest.mark.parametrize("words", [["--temperature", "1", "--seed", "7"], ["--choice", "yes", "no"]])
def test_a_node_killed_in_the_middle_changes_no_byte(model: list[str], tmp_path: Path, words: list[str]) -> None:
    num_rows = 3_000
    asked = [table(tmp_path / "in.jsonl", num_rows), "--template", "{text}: ", "--max-tokens", "8", *words, *model]
    alone, many = tmp_path / "alone.jsonl", tmp_path / "many.jsonl"
    assert on_one_machine([*asked, "-o", alone]) == 1
    with two_nodes() as cluster:
        process = program(cluster, [*asked, "-o", many])
        wait_for_parts(many, num_rows // 256 // 3, process)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        assert status_of(process) == 1  # as some rows are none
    assert many.read_bytes() == alone.read_bytes()
    assert not many.with_name("many.jsonl.parts").exists()


def test_a_killed_driver_goes_on_where_it_was(model: list[str], tmp_path: Path) -> None:
    num_rows = 3_000
    asked = [table(tmp_path / "in.jsonl", num_rows), "--template", "{text}: ", "--max-tokens", "8", *model]
    alone, many = tmp_path / "alone.jsonl", tmp_path / "many.jsonl"
    assert on_one_machine([*asked, "-o", alone]) == 1
    with two_nodes() as cluster:
        process = program(cluster, [*asked, "-o", many])
        wait_for_parts(many, num_rows // 256 // 3, process)
        process.kill()
        process.communicate()
        kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "many.jsonl.parts").glob("*/*.part")}
        process = program(cluster, [*asked, "-o", many])
        wait_for_parts(many, len(kept) + 4, process)
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
        assert status_of(process) == 1
        assert status_of(program(cluster, [*asked, "-o", many])) == 1  # it is done, and says the same
    assert many.read_bytes() == alone.read_bytes()


def test_wrong_use_is_one_line(model: list[str], tmp_path: Path) -> None:
    source = table(tmp_path / "in.jsonl", 3)
    for words in (["--template", "none"], ["--engines", "0"], ["--template", "{n}", "--schema", "missing.json"]):
        done = subprocess.run(
            [sys.executable, str(PROGRAM), str(source), "-o", str(tmp_path / "out.jsonl"), *words],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert words[-2] in done.stderr or words[-1] in done.stderr


def test_more_threads_than_any_machine_has_are_refused(model: list[str], tmp_path: Path) -> None:
    asked = [table(tmp_path / "in.jsonl", 3), "-o", tmp_path / "out.jsonl", "--template", "{n}", *model, "--threads", 3]
    with two_nodes() as cluster:
        process = program(cluster, asked)
        _, told = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2
    assert "--threads 3: the machines of the cluster have 1 processors at most" in told
