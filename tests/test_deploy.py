"""What ``deploy/`` says is true of the program: its flags parse, its paths exist, its metrics are told.

That the files are well formed for docker, systemd, Kubernetes and Prometheus is checked by their own
tools, by hand (docs/deploy.md).
"""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from engine.engine_info import EngineStats
from openai_api.batch.file_store import FileLimits
from openai_api.batch.files_api import MAX_FORM_BYTES
from openai_api.command_line import parse_flags
from openai_api.metrics import PREFIX, Metrics
from openai_api.routing.routes import ROUTES
from openai_api.run import CLOSE_TIMEOUT_S
from openai_api.settings import ServerSettings

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
_SUFFIXES = ("_bucket", "_sum", "_count")


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def container() -> Any:
    return documents("kubernetes.yaml")[0]["spec"]["template"]["spec"]["containers"][0]


def command_lines() -> list[list[str]]:
    """The words behind ``gemma3-server`` wherever one is started to serve."""
    (docker,) = re.findall(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    (unit,) = re.findall(r"^ExecStart=(.*)$", (DEPLOY / "gemma3-server.service").read_text(), re.MULTILINE)
    compose = documents("compose.yaml")[0]["services"]["server"]["command"]
    return [json.loads(docker), shlex.split(unit)[1:], compose, container()["args"]]


def test_every_command_line_parses() -> None:
    for command, *words in command_lines():
        assert command == "serve"
        assert parse_flags(words).port == 8000


def test_probes_ask_for_paths_that_need_no_key() -> None:
    open_paths = {route.path for route in ROUTES if 401 not in route.errors}
    probes = {container()[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    checked = re.findall(r"http://127.0.0.1:8000(/\w+)", (DEPLOY / "Dockerfile").read_text())
    assert probes | set(checked) <= open_paths


def queries() -> list[str]:
    panels = json.loads((DEPLOY / "grafana-dashboard.json").read_text())["panels"]
    of_panels = [target["expr"] for panel in panels for target in panel["targets"]]
    of_alerts = [rule["expr"] for group in documents("alerts.yaml")[0]["groups"] for rule in group["rules"]]
    return of_panels + of_alerts


def told() -> set[str]:
    """The names of all metrics, as a scrape of a new server has them."""
    text = generate_latest(Metrics(EngineStats).registry).decode()
    return set(re.findall(rf"^# TYPE ({PREFIX}\w+) ", text, re.MULTILINE))


@pytest.mark.parametrize("query", queries())
def test_every_metric_of_dashboard_and_alerts_is_told(query: str) -> None:
    names = re.findall(rf"{PREFIX}\w+", query)
    assert names or "up{" in query
    for name in names:
        bare = next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name)
        assert bare in told()


def test_containers_may_do_little() -> None:
    security = container()["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    server = documents("compose.yaml")[0]["services"]["server"]
    assert server["read_only"]
    assert server["cap_drop"] == ["ALL"]
    assert re.search(r"^USER 10001$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)


def test_writable_are_only_the_folders_that_the_image_has_for_it() -> None:
    mounts = [mount["mountPath"] for mount in container()["volumeMounts"]]
    server = documents("compose.yaml")[0]["services"]["server"]
    assert mounts == [*server["tmpfs"], *(volume.split(":")[1] for volume in server["volumes"])]
    assert re.findall(r"^VOLUME (\S+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE) == mounts[1:]


def test_the_image_is_built_from_what_the_package_is_made_of() -> None:
    names = re.findall(r"^!(\S+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    packages = project["tool"]["scikit-build"]["wheel"]["packages"]
    files = [project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"]
    assert sorted(names) == sorted([*packages, *files])


def test_a_pod_has_the_time_that_its_end_takes() -> None:
    """It leaves the Service first, then drains, then uvicorn closes."""
    pod = documents("kubernetes.yaml")[0]["spec"]["template"]["spec"]
    command, wait_s = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    needed_s = int(wait_s) + ServerSettings().drain_timeout_s + CLOSE_TIMEOUT_S
    assert pod["terminationGracePeriodSeconds"] > needed_s


def test_a_disruption_leaves_a_replica() -> None:
    deployment, _, autoscaler, budget = documents("kubernetes.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert budget["spec"]["maxUnavailable"] < autoscaler["spec"]["minReplicas"]
    (spread,) = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert budget["spec"]["selector"]["matchLabels"] == spread["labelSelector"]["matchLabels"] == labels


def test_nginx_has_the_limits_of_the_server() -> None:
    text = (DEPLOY / "nginx.conf").read_text()
    settings, files = ServerSettings(), FileLimits()
    sizes = [int(size) << 20 for size in re.findall(r"client_max_body_size (\d+)m;", text)]
    assert sizes[0] == settings.max_body_bytes
    assert 0 <= sizes[1] - (files.max_file_bytes + MAX_FORM_BYTES) < 1 << 20
    (read_s,) = re.findall(r"proxy_read_timeout (\d+)s;", text)
    assert int(read_s) > settings.request_timeout_s


def test_every_group_of_nginx_has_the_same_replicas() -> None:
    groups = re.findall(r"^upstream .*?^}", (DEPLOY / "nginx.conf").read_text(), re.MULTILINE | re.DOTALL)
    replicas = {tuple(re.findall(r"server (\S+) ", group)) for group in groups}
    assert len(groups) == 3
    assert len(replicas) == 1


def test_the_tables_of_the_plan_are_what_the_program_prints() -> None:
    page = (DEPLOY.parent / "docs" / "scale.md").read_text()
    commands = re.findall(r"^python benchmarks/plan_capacity\.py(.*)$", page, re.MULTILINE)
    tables = re.findall(r"^\| replicas \| time.*?(?=\n\n)", page, re.MULTILINE | re.DOTALL)
    for words, told in zip(commands, tables, strict=True):
        program = [sys.executable, str(DEPLOY.parent / "benchmarks" / "plan_capacity.py"), *words.split()]
        assert subprocess.run(program, capture_output=True, text=True, check=True).stdout.strip() == told
    assert len(tables) == 2
