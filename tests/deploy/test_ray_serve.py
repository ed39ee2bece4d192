"""The server on Ray Serve: what ``deploy/ray_serve.yaml`` promises, on a cluster of this machine."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
import yaml

pytest.importorskip("ray.serve", reason="needs ray: pip install 'ray[serve]'")

from deploy.ray_serve import build_app, flags_from
from openai_api.settings import OptionError
from tests.deploy.ray_cluster import CONFIG, Cluster, ray_cluster, text_of
from tests.engine.engines import tiny_checkpoint
from tests.openai_api.harness import wait_until

PROMPT = [2, 150, 151, 152, 150, 151]
SEEDED: dict[str, Any] = {"model": "tiny", "prompt": PROMPT, "seed": 7, "temperature": 1.0, "max_tokens": 40}
LONG: dict[str, Any] = SEEDED | {"max_tokens": 480, "extra_body": {"ignore_eos": True}}


def open_args(**args: object) -> dict[str, object]:
    return {"threads": 1, "allow-unauthenticated": True, **args}


def test_the_config_file_is_accepted() -> None:
    (app,) = yaml.safe_load(CONFIG.read_text())["applications"]
    flags = flags_from(app["args"])
    assert app["import_path"] == f"{build_app.__module__}:{build_app.__name__}"
    assert [each["name"] for each in app["deployments"]] == [build_app(app["args"])._bound_deployment.name]
    assert flags.threads >= 1


def test_one_replica_takes_the_cores_that_its_engine_uses() -> None:
    deployment = build_app(open_args(threads=3))._bound_deployment
    assert deployment.ray_actor_options["num_cpus"] == 3


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (open_args(**{"max-num-seqs": 0}), "argument --max-num-seqs"),
        (open_args(colour="red"), "unrecognized arguments: --colour=red"),
        (open_args(port=9000), "port is Ray Serve's"),
        (open_args(por=9000), "port is Ray Serve's"),
        ({"allow-unauthenticated": True}, "threads is missing"),
        ({"threads": 1}, "others may reach"),
        ({"threads": 1, "ho": "localhost"}, "host is Ray Serve's"),
        (open_args(help=True), "asks for no server"),
    ],
)
def test_a_wrong_argument_is_one_line(args: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMMA3_API_KEY", raising=False)
    with pytest.raises(OptionError) as error:
        flags_from(args)
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_flags_may_be_given_several_times_or_left_out() -> None:
    flags = flags_from(open_args(**{"allowed-host": ["a.example", "b.example"], "no-prefix-caching": False}))
    assert flags.allowed_host == ["a.example", "b.example"]
    assert flags.prefix_caching


def free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        port: int = each.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("ray")
    model = str(tiny_checkpoint(folder / "tiny"))
    args = open_args(model=model, dtype="float32", **{"kv-cache-memory": "64MiB"})
    with ray_cluster(folder, args, port=free_port()) as running:
        yield running


@pytest.fixture
def two(cluster: Cluster) -> Cluster:
    cluster.deploy(num_replicas=2)
    return cluster


def client(cluster: Cluster, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{cluster.url}/v1", api_key="none", **options)


def metric(http: httpx.Client, name: str) -> dict[str, float]:
    """The samples of one metric, by their labels, of whichever replica is asked."""
    samples = (line.rpartition(" ") for line in http.get("/metrics").text.splitlines() if line.startswith(name))
    return {labels: float(value) for labels, _, value in samples}


def of_each_replica(cluster: Cluster, name: str, *, num_replicas: int = 2) -> list[float]:
    """The sum of a metric for each replica, told apart by the time at which it began to count."""
    sums: dict[float, float] = {}
    with httpx.Client(base_url=cluster.url) as http:
        for _ in range(100):
            samples = metric(http, "gemma3:")
            began = samples["gemma3:prompt_tokens_created"]
            sums[began] = sum(value for labels, value in samples.items() if labels.startswith(name))
    assert len(sums) == num_replicas
    return list(sums.values())


@pytest.mark.slow
def test_every_replica_gives_the_same_bytes_for_a_seed(two: Cluster) -> None:
    with httpx.Client(base_url=two.url, timeout=60) as http:
        answers = [http.post("/v1/completions", json=SEEDED) for _ in range(24)]
    assert len({text_of(answer) for answer in answers}) == 1
    assert len({answer.json()["system_fingerprint"] for answer in answers}) == 1
    assert min(of_each_replica(two, "gemma3:generation_tokens_total")) > 0


@pytest.mark.slow
def test_the_unmodified_client_streams(two: Cluster) -> None:
    sdk = client(two)
    whole = sdk.completions.create(**SEEDED)
    chunks = list(sdk.completions.create(**SEEDED, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert len(chunks) > 10  # the events come one by one
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


@pytest.mark.slow
def test_answers_are_the_server_s_own(two: Cluster) -> None:
    with httpx.Client(base_url=two.url, timeout=60) as http:
        assert http.get("/health").json() == {"status": "ready"}
        wrong = http.post("/v1/completions", json=SEEDED | {"temperature": "hot"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "temperature")
        assert wrong.headers.get_list("x-request-id") == [wrong.headers["x-request-id"]]
        assert http.post("/v1/completions", content=b"{").status_code == 415
        assert http.get("/v1/model").json()["error"]["message"]
        host = http.get("/v1/models", headers={"Host": "evil.example"})
        assert host.json()["error"]["code"] == "host_not_allowed"
    with pytest.raises(openai.NotFoundError):
        client(two).completions.create(**SEEDED | {"model": "another"})


@pytest.mark.slow
def test_a_client_that_goes_ends_its_request(two: Cluster) -> None:
    body = SEEDED | {"max_tokens": 480, "ignore_eos": True, "stream": True, "n": 16}
    with httpx.stream("POST", f"{two.url}/v1/completions", json=body, timeout=60) as answer:
        next(answer.iter_lines())
    wait_until(lambda: sum(of_each_replica(two, "gemma3:num_requests_running")) == 0, timeout_s=20)
    with_reason = 'gemma3:request_success_total{finished_reason="abort"'
    assert sum(of_each_replica(two, with_reason)) >= 1


@pytest.mark.slow
def test_a_killed_replica_takes_only_its_own_requests_with_it(two: Cluster) -> None:
    expected = client(two).completions.create(**LONG).choices[0].text
    begun, killed = asyncio.run(_streams_under_a_kill(two))
    failed = [each for each in begun if isinstance(each, Exception)]
    assert {each for each in begun if isinstance(each, str)} == {expected}
    assert 0 < len(failed) < len(begun), begun
    assert all(isinstance(each, openai.APIConnectionError | openai.InternalServerError) for each in failed), failed
    wait_until(lambda: killed not in two.replicas() and two.has_settled(2), timeout_s=120)


async def _streams_under_a_kill(cluster: Cluster) -> tuple[list[Any], str]:
    """What became of 12 streams while one of two replicas is killed; then each that failed is asked again."""
    sdk = openai.AsyncOpenAI(base_url=f"{cluster.url}/v1", api_key="none", timeout=60)
    first_chunks = asyncio.Semaphore(0)

    async def stream() -> str:
        text = ""
        async for chunk in await sdk.completions.create(**LONG, stream=True):
            first_chunks.release()
            text += chunk.choices[0].text
        return text

    async with sdk:
        running = [asyncio.create_task(stream()) for _ in range(12)]
        for _ in range(60):
            await first_chunks.acquire()
        killed = cluster.replicas()[0]
        cluster.kill(killed)
        begun = await asyncio.gather(*running, return_exceptions=True)
        again = await asyncio.gather(*(stream() for each in begun if isinstance(each, Exception)))
    assert len(set(again)) == 1
    return begun, killed


@pytest.mark.slow
def test_replicas_come_and_go_without_an_error(two: Cluster) -> None:
    def scale() -> None:
        for num_replicas in (1, 2, 1):
            two.deploy(num_replicas=num_replicas)

    assert_answers_while(two, scale)


@pytest.mark.slow
def test_replicas_follow_the_load(cluster: Cluster) -> None:
    """A second one comes while clients wait, and goes when they are gone."""
    times = {"upscale_delay_s": 1, "downscale_delay_s": 1, "look_back_period_s": 11}
    cluster.submit(autoscaling_config={"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 2, **times})
    cluster.wait_for(1)
    assert_answers_while(cluster, lambda: cluster.wait_for(2))
    cluster.wait_for(1)


def assert_answers_while(cluster: Cluster, act: Callable[[], None]) -> None:
    """Eight clients ask again and again until ``act`` returns: every answer is whole, and the same."""
    answers = asyncio.run(_answers_while(cluster, act))
    assert len(answers) >= 8  # one of each client, however slow the machine
    assert len(set(answers)) == 1


async def _answers_while(cluster: Cluster, act: Callable[[], None]) -> list[str]:
    sdk = openai.AsyncOpenAI(base_url=f"{cluster.url}/v1", api_key="none", timeout=60, max_retries=0)
    has_ended = asyncio.Event()

    async def ask() -> list[str]:
        texts = []
        while not has_ended.is_set():
            chunks = [chunk async for chunk in await sdk.completions.create(**LONG, stream=True)]
            assert chunks[-1].choices[0].finish_reason is not None
            texts.append("".join(chunk.choices[0].text for chunk in chunks))
        return texts

    async with sdk, asyncio.TaskGroup() as group:
        asking = [group.create_task(ask()) for _ in range(8)]
        await asyncio.to_thread(act)
        has_ended.set()
        texts = await asyncio.gather(*asking)
    return [each for of_one in texts for each in of_one]


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_told_in_the_status(cluster: Cluster) -> None:
    cluster.with_args(model="/no/such/model").submit(num_replicas=1)
    wait_until(lambda: "ray_serve: error:" in cluster.message(), timeout_s=120)
    assert "/no/such/model" in cluster.message()
