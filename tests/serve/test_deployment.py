"""The examples in `deploy/` say what the command understands."""

import json
import re
import shlex
from pathlib import Path

import click
import pytest
from servers import Served

from inception.cli.main import cli

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def parsed(arguments: list[str]) -> dict:
    command = cli.get_command(click.Context(cli), "serve")
    return command.make_context("serve", list(arguments)).params


def test_dockerfile():
    text = (DEPLOY / "Dockerfile").read_text()
    [entry] = re.findall(r"(?m)^ENTRYPOINT (.*)$", text)
    assert parsed([*json.loads(entry)[2:], "/bundles/x"])["host"] == "0.0.0.0"
    assert re.search(r"(?m)^USER 10001$", text)


def test_systemd_unit():
    text = (DEPLOY / "inception.service").read_text()
    [line] = re.findall(r"(?m)^ExecStart=(.*)$", text)
    assert parsed(shlex.split(line)[2:])["host"] == "127.0.0.1"
    assert "KillMode=mixed" in text  # the inference processes ignore SIGTERM


def test_kubernetes(served: Served):
    yaml = pytest.importorskip("yaml", reason="needs PyYAML to read the example")
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    pod = documents[0]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    options = parsed(container["args"])
    assert pod["terminationGracePeriodSeconds"] > options["drain_seconds"] + 30
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert served.ask("GET", container[probe]["httpGet"]["path"]).status == 200
    [metric] = documents[-1]["spec"]["metrics"]
    assert f"# TYPE {metric['pods']['metric']['name']} gauge" in served.ask("GET", "/metrics").body.decode()
