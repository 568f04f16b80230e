"""A real LiteLLM gateway on loopback with scripted models, in an environment and a process of its own."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from tests.support.router_process import OPENER, ROOT, clean_environment, free_ports, wait_until

PINNED = "litellm[proxy]==1.106.2"
HOME = ROOT / ".litellm"
VENV = HOME / "venv"
STAMP = HOME / "installed"
"""Holds what the environment was made for."""

INSTALL = 240.0
START = 120.0
KEY = "sk-litellm-key-for-tests"
MODELS = ("text", "tools", "echo")
"""What `litellm_models.py` says of them."""


def installed() -> Path:
    """The folder of LiteLLM's programs; made, from the package registry, where the environment is not there.

    Raises CalledProcessError where it cannot be made.
    """
    if not STAMP.exists() or STAMP.read_text() != PINNED:
        STAMP.unlink(missing_ok=True)
        _uv("venv", "--quiet", "--clear", "--no-python-downloads", "--python", sys.executable, str(VENV))
        _uv("pip", "install", "--quiet", PINNED)
        STAMP.write_text(PINNED)
    return VENV / Path(sys.executable).parent.name


def _uv(*arguments: str) -> None:
    environment = {"UV_SYSTEM_CERTS": "true", **os.environ, "VIRTUAL_ENV": str(VENV)}
    subprocess.run([*_uv_command(), *arguments], env=environment, timeout=INSTALL, check=True)


def _uv_command() -> list[str]:
    """Where `.ci/environment.py` finds it."""
    spec = importlib.util.spec_from_file_location("environment", ROOT / ".ci" / "environment.py")
    assert spec is not None
    assert spec.loader is not None
    environment = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(environment)
    command: list[str] = environment.uv_command()
    return command


class LiteLLM:
    """The gateway, ready inside of `with`. It speaks chat completions and Messages below `url`."""

    def __init__(self, folder: Path) -> None:
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = KEY
        self.models = MODELS
        self._log = folder / "litellm.log"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        programs = installed()
        shutil.copy(Path(__file__).with_name("litellm_models.py"), self._folder)
        config = self._folder / "config.yaml"
        config.write_text(json.dumps(_config()))
        command = [programs / "litellm", "--config", config, "--host", "127.0.0.1", "--port", str(self.port)]
        # The list of prices comes with the package; it would be fetched otherwise.
        environment = clean_environment(self._folder, {"LITELLM_LOCAL_MODEL_COST_MAP": "True"})
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=self._folder
            )
        try:
            wait_until(self._answers, START, lambda: f"LiteLLM to start; it said:\n{self.log()}")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"LiteLLM ended with {self._process.returncode}; it said:\n{self.log()}")
        try:
            return OPENER.open(f"{self.url}/health/liveliness", timeout=5).status == 200
        except OSError:
            return False

    def _stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)


def _config() -> dict[str, Any]:
    models = [{"model_name": model, "litellm_params": {"model": f"scripted/{model}"}} for model in MODELS]
    handlers = [{"provider": "scripted", "custom_handler": "litellm_models.scripted"}]
    settings = {"custom_provider_map": handlers, "telemetry": False, "num_retries": 0}
    return {"model_list": models, "litellm_settings": settings, "general_settings": {"master_key": KEY}}
