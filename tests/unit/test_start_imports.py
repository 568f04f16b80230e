"""What the start of a router does not wait for."""

import os
import subprocess
import sys

import pytest

from tests.support.router_process import ROOT

SLOW = ("sqlalchemy", "regex", "jinja2", "httpx", "rich", "pygments", "psutil", "click")
"""Each takes some hundredths or tenths of a second to import."""
LOADED = """
import sys
from mitmproxy.tools import dump
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
import router
assert "signalbox.app" in sys.modules
print(*set(sys.modules) - before)
"""


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """What the script imports beside bare mitmdump."""
    command = [sys.executable, "-c", LOADED, str(ROOT / "addon")]
    environment = {"PATH": os.environ["PATH"]}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("name", SLOW)
def test_the_script_imports_nothing_slow(imported, name):
    assert name not in imported
