"""Models that a provider adds to the model list, and that another one would answer."""

import msgspec

from signalbox.config.document import Mapping, Sequence
from signalbox.config.faults import Fault, shown, step
from signalbox.config.rules import Provider, Rules
from signalbox.messages.body import Body
from signalbox.messages.models import listed
from signalbox.messages.paths import MESSAGES
from signalbox.routing.facts import Facts
from signalbox.routing.match import first_match

PORT = 8082
"""The listener that is asked for a rule, the usual one."""


def routed_elsewhere(rules: Rules, root: Mapping) -> list[str]:
    """A warning for each, with its place in the document `root`.

    Only models that the rules name are looked at: no provider is asked for its list here.
    """
    found = []
    for provider in rules.providers.values():
        for place, id in enumerate(provider.models if isinstance(provider.models, tuple) else ()):
            if to := _elsewhere(rules, provider, id):
                path = step(step(step("$.providers", provider.name), "models"), place)
                message = f"model {shown(id)} is listed for {provider.name} and routed to {to}"
                found.append(Fault(_line(root, provider.name, place), message, path))
    return [fault.within(rules.file.name) for fault in sorted(found)]


def _elsewhere(rules: Rules, provider: Provider, id: str) -> str:
    """Who answers a plain request for this model, if not its provider first."""
    body = Body.parse(msgspec.json.encode({"model": listed(id), "messages": []}))
    rule = first_match(rules, Facts(path=MESSAGES, port=PORT, headers={}, body=body))
    if rule is None:
        return "" if provider.is_anthropic else "the upstream"
    first = rule.choices[0] if rule.choices else ()
    names = [target.provider for target in first]
    return "" if provider.name in names else " or ".join(names) or "nobody"


def _line(root: Mapping, provider: str, place: int) -> int:
    providers = root.get("providers")
    written = providers.items[provider] if isinstance(providers, Mapping) else root
    models = written.get("models") if isinstance(written, Mapping) else None
    return models.items[place].line if isinstance(models, Sequence) else written.line
