"""Listeners of one router (who gets what is in `test_proxy_stream_routing`)."""

from tests.support.raw_client import Caller


def test_each_listener_may_have_rules_of_its_own(start_router, upstream, second):
    text = f"""
providers:
  anthropic: {{url: "{upstream.url}", auth: client}}
  zai: {{url: "{second.url}", key: zai-key-for-tests-0001}}
rules:
"""
    router = start_router(upstream.url, upstream.url, rules=text + "  - {match: other, to: anthropic}\n")
    router.wait_log("rules loaded")
    router.rules(f"{text}  - {{match: {{port: {router.ports[1]}, model: x}}, to: zai/by-port}}\n")
    router.wait_log(r"rules loaded[\s\S]*rules loaded")
    for provider, model in ((upstream, "x"), (second, "by-port")):
        with Caller(router) as caller:
            caller.ask("x")
            assert caller.answer().status == 200
        assert provider.wait_for(1)[0].json["model"] == model
        router.ports.reverse()
