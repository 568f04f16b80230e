"""The merged model list: who is asked, with what, and who is left out."""

import asyncio
import importlib.util
import json
import logging
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from signalbox.background import model_list
from signalbox.background.model_list import FILE, Gathered, ModelLists
from signalbox.config.load import parse
from signalbox.config.rules import Provider, Rules
from signalbox.routing.credentials import Caller
from tests.support.answers import Answer, error_json, json_answer
from tests.support.fake_provider import Upstream
from tests.support.router_process import ROOT

LOGIN = ("Authorization", "Bearer sk-ant-oat01-fake-login-of-nobody")
CALLER = Caller((LOGIN,))
NOBODY = Caller(())


def rules(**providers: str) -> Rules:
    lines = [f"  {name}: {{{settings}}}" for name, settings in providers.items()]
    return parse("\n".join(["providers:", *lines]), file=ROOT / "rules.yaml", environ={})


def client(upstream: Upstream, more: str = "") -> str:
    return f'url: "{upstream.url}", auth: client{more}'


def keyed(upstream: Upstream, more: str = ", models: list") -> str:
    return f'url: "{upstream.url}", key: key-of-the-provider{more}'


def of(*ids: str) -> Answer:
    return json_answer({"data": [{"id": id, "display_name": id.title()} for id in ids]})


def gather(
    folder: Path, rules: Rules, caller: Caller | None = CALLER, *, limit: float = 30, **more: Any
) -> Gathered:
    """`limit` is long: only what hangs should be left out, on a busy machine too."""
    return asyncio.run(ModelLists(folder, token_of=no_login, limit=limit).gather(rules, caller, **more))


def no_login(_: Provider) -> None:
    """Of a provider whose folder holds no login."""


def ids(gathered: Gathered) -> list[str]:
    return [entry["id"] for entry in gathered.entries]


def test_anthropics_part_comes_first_and_then_the_others_in_the_order_of_the_file(tmp_path, upstream, second):
    upstream.answer(of("claude-b", "claude-a"))
    second.answer(of("z", "claude-a"))
    found = rules(zai=keyed(second), typed=keyed(second, ", models: [y, x]"), anthropic=client(upstream))
    gathered = gather(tmp_path, found)
    assert ids(gathered) == ["claude-b", "claude-a", *(f"claude-router-{id}" for id in "zyx")]
    assert gathered.missing == ()


def test_each_is_asked_once_and_gets_its_own_credential_alone(tmp_path, upstream, second):
    upstream.answer(of("claude-a"))
    second.answer(of("z"))
    gather(
        tmp_path, rules(anthropic=client(upstream, ", models: list"), zai=keyed(second)), query="beta=true"
    )
    (home,), (other,) = upstream.requests, second.requests
    assert home.path == "/v1/models?beta=true&limit=1000"
    assert other.path == "/v1/models?limit=1000"
    assert (home.header("authorization"), home.header("x-api-key")) == (LOGIN[1], None)
    assert (other.header("authorization"), other.header("x-api-key")) == (None, "key-of-the-provider")


def test_globs_for_long_context_see_the_models_as_they_are_sent(tmp_path, upstream, second):
    upstream.answer(of("claude-a", "claude-b"))
    found = rules(
        anthropic=client(upstream, ', long_context: ["claude-a"]'),
        zai=f'url: "{second.url}", models: [glm, k3], long_context: ["GLM"]',
    )
    assert [(entry["id"], entry["display_name"]) for entry in gather(tmp_path, found).entries] == [
        ("claude-a", "Claude-A (200K)"),
        ("claude-a[1m]", "Claude-A (1M context)"),
        ("claude-b", "Claude-B"),
        ("claude-router-glm", "glm"),
        ("claude-router-glm[1m]", "glm (1M context)"),
        ("claude-router-k3", "k3"),
    ]


def test_fields_of_anthropics_own_entries_stay_and_those_of_others_go(tmp_path, upstream, second):
    entry = {"id": "claude-a", "display_name": "A", "of_tomorrow": {"x": [1]}}
    upstream.answer(json_answer({"data": [entry]}))
    second.answer(json_answer({"data": [entry | {"id": "claude-z"}]}))
    own, other = gather(tmp_path, rules(anthropic=client(upstream), zai=keyed(second))).entries
    assert own == entry
    assert set(other) == {"type", "id", "display_name", "created_at"}


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_what_anthropic_refuses_is_the_answer(tmp_path, upstream, second, status):
    upstream.answer(error_json(status, "of_anthropic"))
    second.answer(of("z"))
    gathered = gather(tmp_path, rules(anthropic=client(upstream), zai=keyed(second)))
    assert gathered.refusal is not None
    assert gathered.refusal.status == status
    assert json.loads(gathered.refusal.body)["error"]["type"] == "of_anthropic"


@pytest.mark.slow
@pytest.mark.parametrize("failing", ["upstream", "second"])
def test_one_that_hangs_is_left_out_in_time(tmp_path, upstream, second, failing, caplog):
    upstream.answer(of("claude-a"))
    second.answer(of("z"))
    {"upstream": upstream, "second": second}[failing].answer(Answer(wait=threading.Event()))
    begun = time.monotonic()
    gathered = gather(tmp_path, rules(anthropic=client(upstream), zai=keyed(second)), limit=2)
    assert time.monotonic() - begun < 20
    missing, left = ("anthropic", "claude-router-z") if failing == "upstream" else ("zai", "claude-a")
    assert (gathered.missing, gathered.refusal, ids(gathered)) == ((missing,), None, [left])
    assert caplog.messages == [f"no model list from {missing}: it took longer than 2 s"]


def test_a_row_of_like_failures_is_reported_once_and_a_new_row_again(tmp_path, upstream, caplog):
    lists, found = ModelLists(tmp_path, token_of=no_login, limit=30), rules(zai=keyed(upstream))
    answers = [
        error_json(500, "e"),
        error_json(500, "e"),
        error_json(503, "e"),
        of("a"),
        error_json(503, "e"),
    ]
    upstream.answer(*answers)
    for _ in answers:
        asyncio.run(lists.gather(found, NOBODY))
    assert [message[-3:] for message in caplog.messages] == ["500", "503", "503"]


@pytest.mark.parametrize("hostile", [b"<html>", b"null", b'{"data": [null, {"id": []}, 7]}', b"[" * 10**5])
def test_nonsense_of_one_costs_the_others_nothing(tmp_path, upstream, second, hostile):
    upstream.answer(of("claude-a"))
    second.answer(Answer(200, (), (hostile,)))
    assert ids(gather(tmp_path, rules(anthropic=client(upstream), zai=keyed(second)))) == ["claude-a"]


def test_a_provider_without_its_key_adds_nothing(tmp_path, upstream):
    upstream.answer(of("claude-a"))
    found = rules(
        anthropic=client(upstream),
        zai='url: "http://127.0.0.1:9", key: "${UNSET}", models: list',
        other='url: "http://127.0.0.1:9", key: "${UNSET}", models: [m]',
    )
    gathered = gather(tmp_path, found)
    assert (ids(gathered), gathered.missing) == (["claude-a"], ())


def test_a_local_provider_needs_none(tmp_path, upstream):
    upstream.answer(of("qwen"))
    found = rules(ollama=f'url: "{upstream.url}", models: list')
    assert ids(gather(tmp_path, found)) == ["claude-router-qwen"]
    assert upstream.requests[0].header("authorization") is None


def test_a_login_of_a_providers_own_asks_for_anthropics_part_where_it_is_there(tmp_path, upstream, second):
    upstream.answer(of("claude-own"))
    second.answer(of("claude-callers"))
    found = rules(own=f'url: "{upstream.url}", auth: claude-login', anthropic=client(second))
    lists = ModelLists(tmp_path, token_of=lambda _: "sk-ant-oat01-fake-own-login", limit=30)
    assert ids(asyncio.run(lists.gather(found))) == ["claude-own"]
    assert upstream.requests[0].header("authorization") == "Bearer sk-ant-oat01-fake-own-login"
    assert ids(gather(tmp_path, found)) == ["claude-callers"]


def as_upstream(upstream: Upstream) -> Provider:
    return rules(upstream=client(upstream)).providers["upstream"]


def test_without_an_anthropic_provider_the_upstream_is_asked(tmp_path, upstream, second):
    upstream.answer(of("claude-a"))
    second.answer(of("z"))
    gathered = gather(tmp_path, rules(zai=keyed(second)), upstream=as_upstream(upstream))
    assert ids(gathered) == ["claude-a", "claude-router-z"]
    assert upstream.requests[0].header("authorization") == LOGIN[1]


def test_an_upstream_that_does_not_know_the_caller_is_left_out(tmp_path, upstream, second):
    upstream.answer(error_json(401, "authentication_error"))
    second.answer(of("z"))
    gathered = gather(tmp_path, rules(zai=keyed(second)), upstream=as_upstream(upstream))
    assert (ids(gathered), gathered.refusal) == (["claude-router-z"], None)


def test_the_upstream_that_the_rules_name_is_the_provider(tmp_path, upstream):
    upstream.answer(error_json(401, "authentication_error"))
    found = rules(anthropic=client(upstream, ", models: list"))
    assert gather(tmp_path, found, upstream=found.providers["anthropic"]).refusal is not None


def test_a_client_without_a_login_of_its_own_gets_anthropics_part_by_a_key_or_not_at_all(
    tmp_path, upstream, second
):
    second.answer(of("z"))
    text = f"""
providers:
  anthropic: {{{client(upstream)}}}
  zai: {{{keyed(second)}}}
clients: {{laptop: secret-for-tests}}
"""
    found = parse(text, file=ROOT / "rules.yaml", environ={})
    assert ids(gather(tmp_path, found, NOBODY, upstream=as_upstream(upstream))) == ["claude-router-z"]
    assert upstream.requests == []


def test_without_a_caller_anthropics_part_is_the_last_one_seen(tmp_path, upstream):
    upstream.answer(of("claude-seen"))
    found = rules(anthropic=client(upstream, ', models: [extra], long_context: ["*seen"]'))
    gather(tmp_path, found)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert b"fake-login" not in (tmp_path / FILE).read_bytes()
    gathered = gather(tmp_path, found, None)
    assert ids(gathered) == ["claude-seen", "claude-seen[1m]", "claude-router-extra"]
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("kept", [None, "", "{}", '{"data": []}', "\0"])
def test_where_none_was_seen_it_is_the_stock_list(tmp_path, upstream, kept):
    if kept is not None:
        (tmp_path / FILE).write_text(kept)
    gathered = gather(tmp_path, rules(anthropic=client(upstream)), None)
    assert "claude-opus-5-5" in ids(gathered)
    assert all(id.startswith("claude-") for id in ids(gathered))
    assert (upstream.requests, gathered.missing) == ([], ())


def test_the_stock_list_names_models_that_the_anthropic_package_knows(tmp_path):
    package = importlib.util.find_spec("anthropic")
    known = (Path(package.origin).parent / "types/model_param.py").read_text()
    assert [id for id in ids(gather(tmp_path, rules(), None)) if f'"{id}"' not in known] == []


def test_without_a_caller_a_failed_fetch_of_anthropics_part_is_missing(tmp_path, upstream):
    upstream.answer(of("claude-seen"), error_json(401, "authentication_error"))
    found = rules(anthropic=f'url: "{upstream.url}", auth: claude-login')
    lists = ModelLists(tmp_path, token_of=lambda _: "sk-ant-oat01-fake-own-login", limit=30)
    assert ids(asyncio.run(lists.gather(found))) == ["claude-seen"]
    gathered = asyncio.run(lists.gather(found))
    assert (ids(gathered), gathered.missing, gathered.refusal) == (["claude-seen"], ("anthropic",), None)


def test_a_list_that_cannot_be_kept_is_still_given(tmp_path, upstream, caplog):
    upstream.answer(of("claude-a"))
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        assert ids(gather(tmp_path / "file", rules(anthropic=client(upstream)))) == ["claude-a"]
    assert "cannot be written" in caplog.text


def test_where_no_list_can_be_asked_for_those_of_the_rules_are_there(tmp_path, upstream, monkeypatch):
    def out_of_files(_: str) -> None:
        raise OSError("Too many open files")

    monkeypatch.setattr(model_list, "import_module", out_of_files)
    found = gather(tmp_path, rules(up=keyed(upstream), own=keyed(upstream, ", models: [m-1]")))
    assert found.missing == ("up",)
    assert "m-1" in str(found.entries)
