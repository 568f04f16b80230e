"""The router in this process: mitmproxy with the add-on in a thread of its own, before real sockets.

It has the interface of `router_process.Router`, which is a child process, and starts in a tenth of the time.
What needs a process of its own (signals, exit codes, a working folder) stays there.

mitmproxy has two pieces of a process: `mitmproxy.ctx`, which is made to mean the master of the thread that
asks, and logging, of which each router keeps what is logged in its thread.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import mitmproxy.ctx
from mitmproxy.certs import CertStore
from mitmproxy.log import MitmFormatter
from mitmproxy.options import Options
from mitmproxy.tools import cmdline
from mitmproxy.tools.dump import DumpMaster
from mitmproxy.tools.main import process_options

from signalbox.app import App
from signalbox.proxy import setup
from signalbox.record.console import Console, NotOurs
from tests.support.router_process import ROOT, START, RouterFiles, clean_environment

_local = threading.local()
_loops: set[int] = set()
"""Idents of the threads of running routers."""


class _Context(ModuleType):
    """`mitmproxy.ctx` of more than one master: that of the thread that asks."""

    @property
    def master(self) -> Any:
        return _local.master

    @master.setter
    def master(self, master: Any) -> None:
        _local.master = master

    @property
    def options(self) -> Any:
        return _local.options

    @options.setter
    def options(self, options: Any) -> None:
        _local.options = options


@cache
def prepare_process() -> None:
    """Let several masters run, each in a thread of its own. They read the key of their one CA once, which
    would take a third of a start."""
    mitmproxy.ctx.__class__ = _Context
    CertStore.from_store = cache(CertStore.from_store)


class Router(RouterFiles):
    def __init__(
        self,
        folder: Path,
        *upstreams: str,
        rules: str | None = "",
        environment: Mapping[str, str] | None = None,
        options: Iterable[str] = (),
        script: Path = ROOT / "addon" / "router.py",
        state: Path | None = None,
    ) -> None:
        """`rules` None leaves the file absent; `options` are further arguments of mitmdump."""
        super().__init__(folder, *upstreams, rules=rules, options=options, script=script, state=state)
        self._environment = clean_environment(folder, environment or {})
        self._lines = _Lines()
        self._ready = threading.Event()
        self._fault: BaseException | None = None
        self._master: DumpMaster | None = None
        self._thread = threading.Thread(target=self._serve, name=f"router at {self.url}", daemon=True)

    @property
    def app(self) -> App:
        assert self._master is not None
        app = setup.installed_app(self._master)
        assert app is not None
        return app

    def __enter__(self) -> Self:
        prepare_process()
        self._thread.start()
        if not self._ready.wait(START) or self._fault is not None:
            self.stop()
            raise RuntimeError(f"the router did not start; it said:\n{self.log()}") from self._fault
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> int:
        """End it; gives 0, as an exit code."""
        if self._master is not None and self._thread.is_alive():
            self._master.shutdown()
        self._thread.join(10)
        assert not self._thread.is_alive(), f"the router did not end; it said:\n{self.log()}"
        return 0

    def call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call it in the router's thread; gives what it returns."""

        async def called() -> Any:
            return function(*arguments, **named)

        assert self._master is not None
        return asyncio.run_coroutine_threadsafe(called(), self._master.event_loop).result(10)

    def log(self) -> str:
        """All it has logged so far."""
        return self._lines.text()[self._seen[0] :]

    # in the thread

    def _serve(self) -> None:
        _loops.add(threading.get_ident())
        self._lines.install(threading.get_ident())
        try:
            asyncio.run(self._run())
        except BaseException as fault:
            self._fault = fault
        finally:
            self._ready.set()
            self._lines.uninstall()
            _loops.discard(threading.get_ident())

    async def _run(self) -> None:
        options = Options(confdir=str(self.confdir))
        self._master = master = DumpMaster(options, with_termlog=False)
        parser = cmdline.mitmdump(options)
        arguments = parser.parse_args(self._arguments)
        options.set(*arguments.setoptions, defer=True)
        app = App(master, self._environment)
        setup.install(app)
        process_options(parser, options, arguments)
        master.addons.add(_Ready(self._ready))
        try:
            await master.run()
        finally:
            await _close_sockets(master)
            app.close()  # once more: streams that were cut just now are recorded by new threads


async def _close_sockets(master: DumpMaster) -> None:
    """mitmproxy leaves them to the end of its process."""
    proxyserver: Any = master.addons.get("proxyserver")
    await proxyserver.servers.update([])
    for handler in list(proxyserver.connections.values()):
        for transport in handler.transports.values():
            if transport.writer is not None:
                transport.writer.transport.abort()
    for _ in range(3):  # an aborted transport is closed in a turn of its own
        await asyncio.sleep(0)


class _Ready:
    """The last add-on: when it runs, all do."""

    def __init__(self, ready: threading.Event) -> None:
        self._is_ready = ready

    def running(self) -> None:
        self._is_ready.set()


class _Lines(logging.Handler):
    """What one router logs, as the console prints it."""

    def __init__(self) -> None:
        super().__init__()
        self._text = StringIO()
        self._ours = Console(self._text)
        self._thread = 0
        self._others = MitmFormatter(colorize=False)
        self._is_other = NotOurs()

    def install(self, thread: int) -> None:
        self._thread = thread
        logging.getLogger().addHandler(self)
        logging.getLogger("mitmproxy").setLevel(logging.INFO)

    def uninstall(self) -> None:
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Threads that are no router's, such as a writer's, may work for this one."""
        if record.thread == self._thread or record.thread not in _loops:
            if self._is_other.filter(record):
                self._text.write(f"{self._others.format(record)}\n")
            else:
                self._ours.emit(record)

    def text(self) -> str:
        return self._text.getvalue()
