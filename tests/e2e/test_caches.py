"""A provider can keep its cache: what goes through the router begins as the client's requests did."""

import pytest

from tests.bench.caches import compare, run
from tests.conftest import Shared
from tests.support.fake_provider import Upstream


def rules(upstream: Upstream, second: Upstream) -> str:
    return f"""
providers:
  same: {{url: "{upstream.url}", auth: client}}
  other: {{url: "{upstream.url}", key: fake-key-of-the-test}}
  chat: {{url: "{upstream.url}/v1", api: openai, dialect: generic, key: fake-key-of-the-test}}
rules:
  - {{match: {{model: cached-pass}}, to: same}}
  - {{match: {{model: cached-swap}}, to: other/glm-4.7}}
  - {{match: {{model: cached-chat}}, to: chat/glm-4.7}}
"""


@pytest.mark.parametrize("way", ["pass", "swap", "chat"])
def test_no_byte_of_a_session_changes_that_need_not(shared: Shared, way: str) -> None:
    """Forty turns with tools, thinking and a cache mark that moves."""
    translated = way == "chat"
    session = run(shared.router.url, shared.upstream, f"cached-{way}", turns=40, translated=translated)
    kept = compare(session, translated=translated)
    assert kept.prefix == 1.0
    assert kept.changed == (None if translated else 0)
