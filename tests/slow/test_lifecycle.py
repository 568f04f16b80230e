"""Routers in processes of their own: started, found and ended."""

import pytest
from msgspec.structs import replace

from signalbox.config.fields import Listen
from signalbox.lifecycle.running import identity_at, registered, running
from signalbox.lifecycle.spec import LOG, RouterSpec, regular, reverse
from signalbox.lifecycle.start import StartError, start
from tests.support.router_process import ROOT, authority_folder, free_ports, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def spec(tmp_path):
    """A router that ends with the tests."""
    (tmp_path / "rules.yaml").write_text("")
    (port,) = free_ports(1)
    return RouterSpec(
        modes=(reverse(Listen("127.0.0.1", port)),),
        rules=tmp_path / "rules.yaml",
        state=tmp_path / "state",
        script=ROOT / "addon" / "router.py",
        arguments=("--set", f"confdir={authority_folder()}"),
        log=LOG,
        bound=True,
    )


def test_a_router_is_ready_when_start_returns_and_gone_when_it_is_ended(spec):
    router = start(spec)
    port = spec.listeners[0].port
    try:
        assert running("127.0.0.1", port) is not None
        assert identity_at("127.0.0.1", port) == router.identity
        found = registered(spec.state)
        assert found is not None
        assert found.spec == spec
        assert f"point Claude Code here: ANTHROPIC_BASE_URL=http://127.0.0.1:{port} claude" in router.lines
        (again,) = free_ports(1)
        with pytest.raises(StartError, match=f"runs already: process {router.identity.pid}"):
            start(replace(spec, modes=(reverse(Listen("127.0.0.1", again)),)))
    finally:
        ended = router.end()
    assert ended is not None
    assert ended.gently
    assert registered(spec.state) is None
    assert router.process.returncode is not None


def test_a_forward_proxy_beside_it_ends_with_the_process_that_started_it(spec):
    router = start(replace(spec, modes=(regular(spec.listeners[0]),), registered=False))
    assert router.health.mode_at(spec.listeners[0].port) == "regular"
    assert router.process.stdin is not None
    router.process.stdin.close()
    assert router.process.wait(30) == 0
    wait_until(lambda: running("127.0.0.1", spec.listeners[0].port) is None, 5, lambda: "its end")


def test_errors_of_the_rules_come_back_to_who_started_it(spec):
    spec.rules.write_text("rulez: []\n")
    with pytest.raises(StartError) as refused:
        start(replace(spec, fail="closed"))
    assert refused.value.lines == ('rules.yaml:1: unknown key "rulez", did you mean "rules"? (at $)',)
