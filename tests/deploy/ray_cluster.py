"""A Ray cluster of one node, and our server on it as ``serve run`` puts it there."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.openai_api.harness import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = ROOT / "deploy" / "ray_serve.yaml"
APP, DEPLOYMENT = "gemma3", "Replica"
START_TIMEOUT_S = 240


@dataclass(frozen=True)
class Cluster:
    """``address`` is Ray's own, ``url`` that of Serve's proxy."""

    address: str
    port: int
    folder: Path
    args: dict[str, object]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def deploy(self, *, num_replicas: int) -> None:
        """Return when as many replicas serve."""
        self.submit(num_replicas=num_replicas)
        self.wait_for(num_replicas)

    def wait_for(self, num_replicas: int) -> None:
        wait_until(lambda: self.has_settled(num_replicas), timeout_s=START_TIMEOUT_S)

    def submit(self, **options: object) -> None:
        """Give Serve the config of ``deploy/`` with these args, and ``options`` of the deployment in place of its own."""
        config = yaml.safe_load(CONFIG.read_text())
        config["http_options"] |= {"port": self.port}
        (app,) = config["applications"]
        app["args"] = self.args
        app["deployments"] = [{"name": DEPLOYMENT, **options}]
        path = self.folder / "serve.yaml"
        path.write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "ray.serve.scripts", "run", "--non-blocking", "--address", self.address, path]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)

    def with_args(self, **args: object) -> "Cluster":
        return replace(self, args=self.args | args)

    def has_settled(self, num_replicas: int) -> bool:
        """Whether so many replicas run and no other one starts or ends."""
        return self.states() == {"RUNNING": num_replicas} and len(self.replicas()) == num_replicas

    def states(self) -> dict[str, int]:
        from ray import serve

        app = serve.status().applications.get(APP)
        deployment = None if app is None else app.deployments.get(DEPLOYMENT)
        return {} if deployment is None else dict(deployment.replica_states)

    def message(self) -> str:
        """What Serve says of an application that cannot be."""
        from ray import serve

        app = serve.status().applications[APP]
        return " ".join([app.message, *(each.message for each in app.deployments.values())])

    def replicas(self) -> Sequence[str]:
        """The names of the replicas' actors."""
        from ray.util import list_named_actors

        names: Sequence[Any] = list_named_actors(all_namespaces=True)
        return [each["name"] for each in names if re.match(f"SERVE_REPLICA::{APP}#{DEPLOYMENT}#", each["name"])]

    def kill(self, replica: str) -> None:
        """As a machine does that is switched off: nothing is ended first."""
        import ray

        ray.kill(ray.get_actor(replica, namespace="serve"))


@contextmanager
def ray_cluster(folder: Path, args: dict[str, object], *, port: int) -> Iterator[Cluster]:
    """Two cores, no dashboard, no news to Ray's makers; the token that Ray asks for is its own default."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        import ray
        from ray import serve

        node = ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        try:
            yield Cluster(node.address_info["address"], port, folder, args)
            serve.shutdown()
        finally:
            ray.shutdown()


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["text"]
    return text
