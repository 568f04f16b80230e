"""What is allowed in rules.yaml and still surely not meant."""

from collections.abc import Iterator, Mapping

from . import document
from .build import LEVELS
from .faults import Fault, shown, step
from .rules import ANTHROPIC_HOST, Match, Provider, Rules


def warnings(rules: Rules, root: document.Mapping, variables: Mapping[str, str]) -> tuple[str, ...]:
    """One line each, with its place in the document `root` that the rules were made from."""
    found = [*_log_level(root, variables), *_unreachable(rules)]
    for provider in rules.providers.values():
        found += _keys(provider, root)
    return tuple(fault.within(rules.file.name) for fault in sorted(found))


def _log_level(root: document.Mapping, variables: Mapping[str, str]) -> Iterator[Fault]:
    level = variables.get("LOG_LEVEL", "info")
    if level.lower() not in LEVELS:
        expected = f"expected {', '.join(LEVELS)}"
        yield Fault(root.lines.get("log", 1), f"LOG_LEVEL is {shown(level)}: {expected}", "$.log.level")


def _unreachable(rules: Rules) -> Iterator[Fault]:
    for i, rule in enumerate(rules.rules[:-1]):
        if _matches_everything(rule.match):
            message = "the rules after this one are never reached: it matches everything"
            yield Fault(rule.line, message, f"$.rules[{i}]")
            return


def _matches_everything(match: Match) -> bool:
    return match == Match() or (
        any(not glob.text.strip("*") for glob in match.model) and match == Match(model=match.model)
    )


def _keys(provider: Provider, root: document.Mapping) -> Iterator[Fault]:
    line, path = _place(provider, root)
    for key in provider.keys:
        if key.value is None:
            gone = f': provider "{provider.name}" is unavailable' if provider.key is None else ""
            yield Fault(line, key.reason + gone, path)
        elif key.value.startswith("sk-ant-") and provider.url.host != ANTHROPIC_HOST:
            yield Fault(line, f"a key of Anthropic's is configured for {provider.url.host}", path)


def _place(provider: Provider, root: document.Mapping) -> tuple[int, str]:
    path = step("$.providers", provider.name)
    providers = root.get("providers")
    written = providers.items[provider.name] if isinstance(providers, document.Mapping) else root
    if isinstance(written, document.Mapping):
        for key in ("key", "keys"):
            if written.get(key) is not None:
                return written.lines[key], step(path, key)
    return written.line, path
