"""A provider can keep its cache: what goes through the router begins as the client's requests did."""

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
  - {{match: {{model: moving}}, to: [same/claude-sonnet-4-6, other/claude-sonnet-4-6]}}
"""


def test_no_byte_of_a_session_changes_that_need_not(shared: Shared) -> None:
    """Twenty turns with tools, thinking and a cache mark that moves."""
    for way in ("pass", "swap", "chat"):
        translated = way == "chat"
        session = run(shared.router.url, shared.upstream, f"cached-{way}", turns=20, translated=translated)
        kept = compare(session, translated=translated)
        assert kept.prefix == 1.0, way
        assert kept.changed == (None if translated else 0), way
