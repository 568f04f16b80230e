"""Pipes and held locks in the place of state files hold nobody up."""

import asyncio
import os
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from signalbox.config.fields import Url
from signalbox.config.rules import Provider, Rules
from signalbox.state.learned_db import FILE
from signalbox.state.logins import Logins, ProviderLogins
from signalbox.state.provenance import ProvenanceStore
from signalbox.state.quota_files import QUOTA_FILE, read_quotas
from signalbox.state.unsupported_store import UnsupportedStore

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
ONE, TWO = b"1" * 16, b"2" * 16


def test_a_pipe_in_the_place_of_each_file_is_nothing(tmp_path: Path):
    for name in (QUOTA_FILE, FILE, ".credentials.json"):
        os.mkfifo(tmp_path / name)
    began = time.monotonic()
    assert list(read_quotas(tmp_path).all()) == []
    with closing(UnsupportedStore(tmp_path)) as learned:
        learned.learn("zai", "m", ["speed"])
        assert learned.rejected("zai", "m") == {"speed"}
    with closing(ProvenanceStore(tmp_path)) as issued:
        issued.learn([ONE], "zai")
        asyncio.run(issued.refreshed())
        assert issued.issuer(ONE) == "zai"
    logins = Logins()
    logins.read([tmp_path])
    assert logins.of(tmp_path, 0.0).token is None
    assert time.monotonic() - began < 10


def test_a_provider_without_a_login_says_why(tmp_path: Path):
    os.mkfifo(tmp_path / ".credentials.json")
    provider = Provider("a", Url("https", "api.anthropic.com", 443), auth="claude-login", login=tmp_path)
    logins = ProviderLogins()
    logins.read(Rules(providers={"a": provider}))
    refusal = logins.refusal(provider, 0.0)
    assert refusal is not None
    assert "it is no file" in refusal[1]
