"""Dockerfile and compose.yaml: linted, and held to what they copy, mount and promise."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.compose import validate
from tests.support.router_process import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
TEXT = (ROOT / "compose.yaml").read_text(encoding="utf-8")
ROUTER: dict[str, Any] = yaml.safe_load(TEXT)["services"]["router"]


def linted(file: Path) -> str:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is there for Linux only")
    command = [hadolint, "--no-color", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout


def test_hadolint_finds_nothing_in_the_dockerfile(tmp_path):
    assert linted(ROOT / "Dockerfile") == ""
    worse = tmp_path / "Dockerfile"
    worse.write_text(DOCKERFILE.replace("python:3.13-slim", "python"))
    assert "DL3006" in linted(worse)


def test_the_image_is_made_of_files_that_are_there_and_not_ignored():
    copied = re.findall(r"^COPY (\S+)", DOCKERFILE, re.MULTILINE)
    assert copied == ["requirements-runtime.lock", "addon"]
    wanted = (ROOT / ".dockerignore").read_text().splitlines()
    assert [f"!{part}" in wanted and (ROOT / part).exists() for part in copied] == [True, True]


def test_the_image_runs_as_a_user_without_rights_and_says_whether_it_is_well():
    assert re.search(r"^USER \d+$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*\n +CMD .*/health", DOCKERFILE, re.MULTILINE)


def test_all_that_the_router_writes_is_in_the_volume():
    started = json.loads(DOCKERFILE.partition("ENTRYPOINT ")[2].replace("\\\n", ""))
    assert started[:4] == ["python", "-m", "signalbox.cli", "run"]
    assert started[started.index("--state") + 1] == "/var/lib/signalbox"
    assert started[-1] == "confdir=/var/lib/signalbox/mitmproxy"
    assert ROUTER["read_only"] is True
    assert "state:/var/lib/signalbox" in ROUTER["volumes"]


def test_compose_yaml_is_what_the_compose_specification_allows():
    validate(TEXT)


def test_only_this_machine_reaches_the_router_of_compose_yaml():
    assert ROUTER["ports"] == ["127.0.0.1:8082:8082"]
