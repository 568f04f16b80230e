"""The event loop of a router that our own commands start."""

import subprocess
import sys

import pytest

from tests.support.router_process import ROOT, clean_environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop for Windows")

# mitmproxy runs under its own task factory, by which a task begins in the statement that makes it.
PROGRAM = """
import asyncio
from mitmproxy.utils.asyncio_utils import create_task, set_eager_task_factory
from signalbox.lifecycle.event_loop import use_uvloop

async def main():
    begun = []
    async def work():
        begun.append(True)
    with set_eager_task_factory():
        create_task(work(), name="work", keep_ref=True)
        print(type(asyncio.get_running_loop()).__mro__[1].__module__, begun)

use_uvloop()
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("settings", "module"),
    [({}, "uvloop"), ({"SIGNALBOX_PLAIN": "0"}, "uvloop"), ({"SIGNALBOX_PLAIN": "1"}, "asyncio")],
)
def test_uvloop_runs_mitmproxys_tasks_unless_its_own_ways_are_asked_for(tmp_path, settings, module):
    environment = clean_environment(tmp_path, {"PYTHONPATH": str(ROOT / "addon"), **settings})
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith(module)
    assert done.stdout.endswith("[True]\n")
