"""What many tests stand on."""

import gc
import inspect
import itertools
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import pytest

from tests.support.fake_provider import Upstream
from tests.support.litellm import LiteLLM
from tests.support.playbook import Playbook, PlayedRouter, played
from tests.support.postgres import Postgres, programs
from tests.support.raw_client import Caller, black_hole
from tests.support.router import Router as InProcessRouter
from tests.support.router_process import RouterFiles
from tests.support.tls import speaks_no_tls

# That a machine is busy is no fault of the code. `just test` takes the quick one.
for profile, examples in (("thorough", 100), ("quick", 15)):
    hypothesis.settings.register_profile(
        profile,
        deadline=None,
        max_examples=examples,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
hypothesis.settings.load_profile("thorough")


def pytest_collection_finish() -> None:
    """What was imported and collected stays: not to look through it for garbage saves 8 % of the time."""
    gc.freeze()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as one:
        yield one


@pytest.fixture
def second() -> Iterator[Upstream]:
    """Another upstream."""
    with Upstream() as one:
        yield one


@pytest.fixture(scope="module")
def home_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Routers run in this process: none of them may find, or write to, the home of who runs the tests."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("USERPROFILE", str(folder))
        yield folder


@pytest.fixture
def start_router(
    tmp_path: Path, request: pytest.FixtureRequest, home_folder: Path
) -> Iterator[Callable[..., RouterFiles]]:
    """Starts a router with the arguments of `Router` less the folder; it ends with the test."""
    with ExitStack() as started:

        def start(*upstreams: str, **settings: Any) -> RouterFiles:
            folder = tmp_path / f"router{len(list(tmp_path.glob('router*')))}"
            folder.mkdir()
            return started.enter_context(router_class(request)(folder, *upstreams, **settings))

        yield start


def router_class(request: pytest.FixtureRequest) -> Any:
    """The router in this process; a module that needs a child process says
    `ROUTER = router_process.Router`."""
    return getattr(request.module, "ROUTER", InProcessRouter)


class Shared(NamedTuple):
    """One router before two upstreams, started once for a module of tests."""

    router: RouterFiles
    upstream: Upstream
    second: Upstream


@pytest.fixture(scope="module")
def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, home_folder: Path
) -> Iterator[Shared]:
    """With the rules that the module's function `rules(upstream, second)` gives, and the module's `OPTIONS`.

    What else `rules` must be given are fixtures of those names.
    """
    folder = tmp_path_factory.mktemp("shared")
    parameters = list(inspect.signature(request.module.rules).parameters.values())[2:]
    more = [request.getfixturevalue(one.name) for one in parameters if one.default is one.empty]
    options = getattr(request.module, "OPTIONS", ())
    with Upstream() as upstream, Upstream() as second:
        rules = request.module.rules(upstream, second, *more)
        with router_class(request)(folder, upstream.url, rules=rules, options=options) as router:
            yield Shared(router, upstream, second)


@pytest.fixture
def shared(started: Shared) -> Shared:
    """As if it had just started: upstreams unscripted, nothing received, logged or recorded yet."""
    started.upstream.reset()
    started.second.reset()
    started.router.forget()
    return started


@pytest.fixture
def router(shared: Shared) -> RouterFiles:
    return shared.router


@pytest.fixture
def home(shared: Shared) -> Upstream:
    """The first of the two upstreams: Anthropic, where it matters."""
    return shared.upstream


@pytest.fixture
def up(shared: Shared) -> Upstream:
    """The second: another provider."""
    return shared.second


@pytest.fixture(scope="module")
def _played_router(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PlayedRouter]:
    """A router of a playbook, with the module's `RULES`."""
    with played(tmp_path_factory.mktemp("played"), request.module.RULES) as router:
        yield router


@pytest.fixture
def played_router(_played_router: PlayedRouter) -> PlayedRouter:
    """The module's, with no provider that is scripted."""
    _played_router.providers.clear()
    return _played_router


@pytest.fixture
def play(played_router: PlayedRouter) -> Playbook:
    """A client that has just connected, a day after the test before."""
    return played_router.connect()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of its own; where that is not installed, the test is skipped."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed: just test-all does, where it is root on Debian")
    with Postgres() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def litellm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteLLM]:
    """A real LiteLLM gateway. Tests that use it are marked `litellm`; the first one waits for its start."""
    with LiteLLM(tmp_path_factory.mktemp("litellm")) as gateway:
        yield gateway


@pytest.fixture
def caller(shared: Shared, request: pytest.FixtureRequest) -> Iterator[Caller]:
    """A client of the shared router; the test's name is its session."""
    with Caller(shared.router, request.node.name) as one:
        yield one


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opened at the end of the test at the latest, so that no upstream hangs on it."""
    one = threading.Event()
    yield one
    one.set()


@pytest.fixture
def never(gate: threading.Event) -> threading.Event:
    """The same where nobody opens it before the end."""
    return gate


_numbers = itertools.count()


@pytest.fixture
def named() -> Callable[[str], str]:
    """A model of that rule that was never asked for: none of its targets rests."""
    return lambda rule: f"{rule}-{next(_numbers)}"


@pytest.fixture(scope="module")
def hole() -> Iterator[int]:
    """The port of a black hole."""
    with black_hole() as port:
        yield port


@pytest.fixture(scope="module")
def mute() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def no_tls() -> Iterator[int]:
    """The port of a server that speaks no TLS."""
    with speaks_no_tls() as port:
        yield port


@pytest.fixture(scope="session")
def own_address() -> str:
    """An address of this machine that is not loopback; where there is none, the test is skipped."""
    found = subprocess.run(["hostname", "-I"], capture_output=True, text=True, timeout=5, check=False).stdout
    if (address := next((address for address in found.split() if "." in address), None)) is None:
        pytest.skip("this machine has no address but loopback")
    return address
