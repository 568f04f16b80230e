"""Which flows mitmproxy itself may replay."""

import json
from pathlib import Path

import pytest
from mitmproxy import http
from mitmproxy.addons.savehar import SaveHar
from mitmproxy.io import FlowReader
from mitmproxy.test import tflow

from signalbox.inspect.annotations import METADATA
from signalbox.proxy.classify import is_refused_replay


def flow(**headers: str) -> http.HTTPFlow:
    made = tflow.tflow(resp=True)
    made.request.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return made


@pytest.mark.parametrize("masked", ["Bearer sk-an...obody", "Basic ***", "zai-k...-0001", "***"])
def test_masked_credential_is_not_replayed_whoever_loaded_the_flow(tmp_path: Path, masked: str):
    shown = flow(authorization=masked)
    assert is_refused_replay(shown)
    file = tmp_path / "exported.har"
    file.write_text(json.dumps(SaveHar().make_har([shown])))
    with file.open("rb") as source:
        assert [is_refused_replay(one) for one in FlowReader(source).stream()] == [True]


@pytest.mark.parametrize("path", ["/v1/messages?key=***", "/v1/messages?beta=true&***", "/?a=1&t=***&b=2"])
def test_masked_parameter_is_not_replayed_whoever_loaded_the_flow(tmp_path: Path, path: str):
    shown = flow()
    shown.request.path = path
    file = tmp_path / "exported.har"
    file.write_text(json.dumps(SaveHar().make_har([shown])))
    with file.open("rb") as source:
        assert [is_refused_replay(one) for one in FlowReader(source).stream()] == [True]


def test_flow_of_the_router_is_not_replayed_unless_its_secrets_are_shown():
    ours = flow()
    ours.metadata[METADATA] = {}
    assert is_refused_replay(ours)
    assert is_refused_replay(ours.copy())
    ours.metadata[METADATA] = {"masked": False}
    assert not is_refused_replay(ours)
    ours.metadata[METADATA] = {"masked": False, "request_length": 3_000_000}
    assert is_refused_replay(ours)


def test_flows_of_others_are_replayed():
    assert not is_refused_replay(flow(authorization="Bearer sk-ant-oat01-fake-login-of-nobody"))
    assert not is_refused_replay(flow(x_note="first...later"))
    assert not is_refused_replay(tflow.ttcpflow())
    for path in ("/v1/messages?beta=true", "/search?q=***bold***&&", "/a?", "/a"):
        other = flow()
        other.request.path = path
        assert not is_refused_replay(other)
