"""What many tests stand on."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.litellm import LiteLLM
from tests.running import Router
from tests.upstream import Upstream


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as one:
        yield one


@pytest.fixture
def second() -> Iterator[Upstream]:
    """Another upstream."""
    with Upstream() as one:
        yield one


@pytest.fixture
def start_router(tmp_path: Path) -> Iterator[Callable[..., Router]]:
    """Starts a router with the arguments of `Router` less the folder; it ends with the test."""
    with ExitStack() as started:

        def start(*upstreams: str, **settings: Any) -> Router:
            folder = tmp_path / f"router{len(list(tmp_path.glob('router*')))}"
            folder.mkdir()
            return started.enter_context(Router(folder, *upstreams, **settings))

        yield start


class Shared(NamedTuple):
    """One router before two upstreams, started once for a module of tests."""

    router: Router
    upstream: Upstream
    second: Upstream


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """With the rules that the module's function `rules(upstream, second)` gives."""
    folder = tmp_path_factory.mktemp("shared")
    with Upstream() as upstream, Upstream() as second:
        rules = request.module.rules(upstream, second)
        with Router(folder, upstream.url, rules=rules) as router:
            yield Shared(router, upstream, second)


@pytest.fixture
def shared(started: Shared) -> Shared:
    """As if it had just started: upstreams unscripted, nothing received, logged or recorded yet."""
    started.upstream.reset()
    started.second.reset()
    started.router.forget()
    return started


@pytest.fixture(scope="session")
def litellm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteLLM]:
    """A real LiteLLM gateway. Tests that use it are marked `litellm`; the first one waits for its start."""
    with LiteLLM(tmp_path_factory.mktemp("litellm")) as gateway:
        yield gateway
