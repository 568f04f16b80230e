"""Keys of mitmproxy's console for the router's commands."""

from types import SimpleNamespace
from unittest.mock import Mock

from mitmproxy.tools.console import defaultkeys
from mitmproxy.tools.console.keymap import Keymap

from signalbox.proxy.setup import FLOW_VIEWS, KEYS, bind_keys


def keymap() -> Keymap:
    made = Keymap(Mock())
    defaultkeys.map(made)
    return made


def test_keys_are_bound_where_flows_are_shown_and_take_none_of_mitmproxys():
    keys = keymap()
    assert not [key for key in KEYS for context in FLOW_VIEWS if keys.get(context, key)]
    bind_keys(SimpleNamespace(keymap=keys))
    for context in FLOW_VIEWS:
        assert {key: keys.get(context, key).command for key in KEYS} == {
            "T": "console.command signalbox.replay @focus ",
            "Y": "signalbox.explain @focus",
        }


def test_key_that_the_user_has_bound_stays():
    keys = keymap()
    keys.add("T", "flow.mark.toggle @focus", ["flowlist"], "mine")
    bind_keys(SimpleNamespace(keymap=keys))
    assert keys.get("flowlist", "T").help == "mine"
    assert keys.get("flowview", "T").help == "Replay to another target"


def test_master_without_a_console_has_no_keys():
    bind_keys(SimpleNamespace())
