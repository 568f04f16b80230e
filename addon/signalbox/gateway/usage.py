"""What is wrong with the options that mitmproxy was started with, in lines for people.

mitmproxy itself keeps an option that nobody knows without a word, and takes any argument that is no option
for a filter of flows.
"""

import os
from collections.abc import Iterator

from mitmproxy.options import Options

from signalbox import ports
from signalbox.config.document import nearest

OURS = ("router_rules", "router_state")
_FILTERS = ("dumper_filter", "view_filter", "readfile_filter")


def faults(options: Options) -> Iterator[str]:
    """One line for each fault; any of them should end the start."""
    yield from _misspelt(options)
    words = {word for name in _FILTERS if name in options for word in (getattr(options, name) or "").split()}
    for word in sorted(words):
        if word.lower().endswith((".yaml", ".yml")):
            yield f"{word} would be a filter of flows here: write --set router_rules={word}"
    if "web_port" in options and options.web_port and not ports.is_free(options.web_port, options.web_host):
        yield f"{ports.taken(options.web_port)}: end that, or take another with --web-port"


def taken_ports(listen: Iterator[int]) -> Iterator[str]:
    """A line for each of these ports that another process has."""
    for port in listen:
        owner = ports.owner(port)
        if owner is not None and owner[1] != os.getpid():
            yield f"{ports.taken(port)}: end that, or take another in --mode"


def _misspelt(options: Options) -> Iterator[str]:
    for name, value in options.deferred.items():
        if name in OURS and len(getattr(value, "val", ())) > 1:
            yield f"--set {name} is given {len(value.val)} times"
        elif name not in OURS and (meant := nearest(name, OURS) or ("rules" in name and OURS[0])):
            yield f"--set {name}: there is no such option, did you mean {meant}?"
