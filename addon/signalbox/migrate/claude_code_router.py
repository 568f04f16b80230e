"""claude-code-router: `config.json` of version 2, and the same and more of version 3 in `config.sqlite`.

Facts: its README at version 2.0.0, and `docs/` and `packages/core/src/config` at 3.0
(https://github.com/musistudio/claude-code-router).
"""

import json
import re
import sqlite3
from typing import Any
from urllib.parse import urlsplit

from signalbox.migrate.environment import LEVELS, listen
from signalbox.migrate.form import (
    Migration,
    SourceError,
    base_url,
    chat_provider,
    duration,
    glob,
    messages_provider,
    variable_name,
)
from signalbox.migrate.tree import Tree

LONG_CONTEXT = 60_000
"""Tokens from which version 2 takes the model for long contexts, where it says nothing else."""
_GOOGLE = "https://generativelanguage.googleapis.com/v1beta/openai"
_OWN_PROTOCOLS = {"vertex-gemini", "gemini-cli", "qwen-cli", "rovo-cli", "vertex-claude", "vercel"}
"""Transformers for something else than an address with a key."""
_AUTOMATIC = {
    "anthropic", "openai", "openai-response", "openai-responses", "gemini", "openrouter", "deepseek", "groq",
    "cerebras", "maxtoken", "tooluse", "reasoning", "forcereasoning", "sampling", "enhancetool", "cleancache",
    "streamoptions", "maxcompletiontokens", "chutes-glm",
}  # fmt: skip
"""Transformers whose work the router does by itself, by the host and by what a provider rejects."""
_KEYS = ("api_key", "apiKey", "apikey")
_URLS = ("api_base_url", "baseUrl", "baseurl")
_SILENT = (
    "NON_INTERACTIVE_MODE",
    "LOG",
    "theme",
    "autoStart",
    "launchAtLogin",
    "tray",
    "trayIcon",
    "builtInRules",
)


def recognises(tree: dict[str, Any]) -> bool:
    """cc-switch has `providers` too, but as a mapping, and LiteLLM has `model_list`."""
    return "Providers" in tree or "Router" in tree or isinstance(tree.get("providers"), list)


def migrate(tree: dict[str, Any]) -> Migration:
    """Raises SourceError."""
    return _Reader(Tree(tree)).migration


def migrate_database(database: sqlite3.Connection) -> Migration:
    """Of version 3's config.sqlite. Raises SourceError and sqlite3.Error."""
    for _, written in database.execute("SELECT key, value_json FROM app_config"):
        try:
            tree = json.loads(written)
        except (TypeError, ValueError):
            continue
        if isinstance(tree, dict) and recognises(tree):
            rows = database.execute("SELECT encrypted_key FROM api_keys WHERE encryption = 'plain'")
            keys = [{"key": key} for (key,) in rows]
            return migrate({**tree, "APIKEYS": keys or tree.get("APIKEYS")})
    raise SourceError("its table app_config holds no configuration")


class _Reader:
    def __init__(self, tree: Tree) -> None:
        self.migration = Migration("a configuration of claude-code-router")
        self._names: dict[str, str] = {}
        """Our names of providers, by those of the file in lower case, and by their ids."""
        self._bodies: dict[tuple[str, str], dict[str, Any]] = {}
        """What is set in the body for one model of a provider."""
        self._tree = tree
        for provider in tree.trees("Providers", "providers"):
            self._add_provider(provider)
        self._everywhere()
        self._add_listed_models()
        router = tree.tree("Router", "router")
        if "rules" in router or "builtInRules" in router:
            self._version_3(router)
        else:
            self._version_2(router)
        self._clients()
        self._leftovers(router)

    # providers

    def _add_provider(self, provider: Tree) -> None:
        name = provider.text("name")
        if not name:
            raise SourceError("this provider has no name", provider.place)
        if provider.flag("enabled") is False:
            self.migration.note(f"{name}: is switched off and left out")
            return
        transformer = provider.tree("transformer")
        used = _transformers(transformer)
        if own := _OWN_PROTOCOLS & set(used):
            self.migration.note(f"{name}: left out, its transformer {min(own)} has no counterpart")
            return
        for unknown in sorted(used.keys() - _AUTOMATIC):
            self.migration.note(f"{name}: the transformer {unknown} has no counterpart")
        settings = self._settings(provider, name, used)
        if settings is None:
            return
        models = [model for model in provider.texts("models") if model]
        if models:
            settings["models"] = models
        self._limits(settings, transformer, used)
        if headers := provider.tree("extraHeaders"):
            found = {key: headers.text(key) for key in headers.names}
            settings |= {"headers": self._headers(name, found)} if found else {}
        extra = provider.tree("extraBody")
        if extra.names:
            settings["body"] = {"set": {key: extra.take(key) for key in extra.names}}
        ours = self.migration.provider(name, settings)
        for known in (name, provider.text("id")):
            self._names.setdefault(known.lower(), ours)
        self._bodies |= {(ours, model): body for model, body in _bodies(transformer).items()}
        if whole := _options(used.get("openrouter")):
            settings["body"] = {"set": {**settings.get("body", {}).get("set", {}), **whole}}

    def _settings(self, provider: Tree, name: str, used: dict[str, Any]) -> dict[str, Any] | None:
        """URL, protocol and key."""
        capability = next(iter(provider.trees("capabilities")), Tree({}, provider.place))
        protocol = capability.text("type", "protocol") or provider.text("protocol", "type")
        url = provider.text(*_URLS) or capability.text("baseUrl", "baseurl")
        if not url:
            self.migration.note(f"{name}: left out, it has no address")
            return None
        keys = [
            one.text("api_key", "apiKey", "key", "token") for one in provider.trees("credentials", "keys")
        ]
        keys = [key for key in [provider.text(*_KEYS), *keys] if key]
        references = [
            self.migration.secret(f"{variable_name(name)}_API_KEY", key) for key in dict.fromkeys(keys)
        ]
        one = references[0] if references else None
        place = provider.at("api_base_url")
        if "responses" in protocol or "openai-response" in used or url.rstrip("/").endswith("/responses"):
            settings = {**chat_provider(base_url(url, "responses", place), one), "api": "responses"}
        elif (
            "gemini" in protocol or "gemini" in used or "generativelanguage" in (urlsplit(url).hostname or "")
        ):
            settings = chat_provider(_GOOGLE, one)
        elif "anthropic" in protocol or list(used) == ["anthropic"]:
            settings = messages_provider(base_url(url, "anthropic", place), one, bearer=True)
        else:
            settings = chat_provider(base_url(url, "openai", place), one)
        if len(references) > 1:
            settings["keys"] = references
            del settings["key"]
        return settings

    def _limits(self, settings: dict[str, Any], transformer: Tree, used: dict[str, Any]) -> None:
        limits = {
            glob(model): most
            for model in transformer.names
            if model != "use" and (most := _most_tokens(_transformers(transformer.tree(model))))
        }
        if most := _most_tokens(used):
            settings["max_tokens"] = {**limits, "*": most} if limits else most
        elif limits:
            settings["max_tokens"] = limits

    def _headers(self, name: str, headers: dict[str, str]) -> dict[str, str]:
        return {
            key: self.migration.secret(f"{variable_name(name)}_{variable_name(key)}", value)
            if re.search("auth|key|token|secret|cookie", key, re.IGNORECASE)
            else value
            for key, value in headers.items()
        }

    def _everywhere(self) -> None:
        """What holds for all providers: time limit, proxy."""
        if milliseconds := self._tree.number("API_TIMEOUT_MS"):
            for provider in self.migration.providers.values():
                provider["timeout"] = {"first_byte": duration(milliseconds / 1000)}
        if proxy := self._tree.text("PROXY_URL"):
            self.migration.through(proxy)

    def _add_listed_models(self) -> None:
        """A rule that sends each listed model to its provider: that is what `/model` and pickers choose.

        Names of Claude's own stay out: the router's other rules are about them.
        """
        taken: set[str] = set()
        for name, provider in self.migration.providers.items():
            models = [one for one in provider.get("models", ()) if "claude" not in one.lower()]
            models = [one for one in models if one.lower() not in taken]
            taken |= {one.lower() for one in models}
            if models:
                provider["models"] = models
                rule = {"name": f"{name}-models", "match": [glob(one) for one in models], "to": name}
                self.migration.rules.append(rule)
            else:
                provider.pop("models", None)

    # routes

    def _target(self, written: str) -> str | dict[str, Any] | None:
        """`provider,model` of version 2, `provider/model` of version 3."""
        separator = "," if "," in written else "/"
        provider, _, model = (part.strip() for part in written.partition(separator))
        name = self._names.get(provider.lower())
        if name is None or not model:
            self.migration.note(f"{written}: no provider of this name is there, this target is left out")
            return None
        if body := self._bodies.get((name, model)):
            return {"provider": name, "model": model, "body": {"set": body}}
        return f"{name}/{model}"

    def _targets(self, written: list[str]) -> list[Any]:
        targets = [target for one in written if one and (target := self._target(one))]
        return [target for i, target in enumerate(targets) if target not in targets[:i]]

    def _rule(self, name: str, match: Any, targets: list[Any], **more: Any) -> None:
        if targets:
            self.migration.rules.append({"name": name, "match": match, "to": targets, **more})

    def _version_2(self, router: Tree) -> None:
        """In the order in which it asks: the first that holds wins."""
        fallback = self._tree.tree("fallback")
        threshold = int(router.number("longContextThreshold") or LONG_CONTEXT)
        for name, match in (
            ("longContext", {"tokens_over": threshold}),
            ("image", {"images": True}),
            ("background", {"model": "*claude*", "tier": "haiku"}),
            ("webSearch", {"tools": "web_search*"}),
            ("think", {"thinking": True}),
            ("default", "*"),
        ):
            if written := router.text(name):
                self._rule(name, match, self._targets([written, *fallback.texts(name)]))
        if not self.migration.rules or self.migration.rules[-1]["match"] != "*":
            self.migration.note("Router.default is missing: all other requests go to Anthropic")
            self._rule("default", "*", [self.migration.anthropic()])

    def _version_3(self, router: Tree) -> None:
        fallback = router.tree("fallback")
        after = fallback.texts("models") if fallback.text("mode") == "model-chain" else []
        if fallback.text("mode") == "retry":
            self.migration.settings["failover"] = {
                "retries": int(min(fallback.number("retryCount") or 1, 10))
            }
        router.take("builtInRules")
        for rule in router.trees("rules"):
            self._rule_of_version_3(rule, after)
        profile = self._profile()
        for tier in ("haiku", "sonnet", "opus", "fable"):
            if model := profile.text(f"{tier}Model"):
                self._rule(tier, {"tier": tier}, self._targets([model, *after]))
        main = profile.text("model") or next(iter(after), "")
        self._rule("default", "*", self._targets([main, *after]) if main else [self.migration.anthropic()])
        if not main:
            self.migration.note("no model for Claude Code is chosen: other requests go to Anthropic")
        profile.text("smallFastModel")

    def _profile(self) -> Tree:
        """Of Claude Code: of the enabled profiles the first, else the older form."""
        profile = self._tree.tree("profile")
        for one in profile.trees("profiles"):
            if (
                one.text("agent") in ("claude-code", "claude", "claudeCode")
                and one.flag("enabled") is not False
            ):
                return one
        return profile.tree("claudeCode")

    def _rule_of_version_3(self, rule: Tree, after: list[str]) -> None:
        name = rule.text("name", "id") or rule.place
        if rule.flag("enabled") is False:
            self.migration.note(f"{name}: is switched off and left out")
            return
        match = _match(rule)
        if match is None:
            self.migration.note(f"{name}: its condition has no counterpart, the rule is left out")
            return
        model, body, headers = rule.text("target"), {}, {}
        changes = rule.trees("rewrites") or [rule.tree("rewrite")]
        for change in changes:
            key, value = change.text("key"), _literal(change.take("value"))
            operation = change.text("operation") or "set"
            if key == "request.body.model" and operation == "set":
                model = str(value)
            elif key.startswith("request.body.") and "." not in key[13:] and operation == "set":
                body[key[13:]] = value
            elif key.startswith("request.header.") and operation in ("set", "delete"):
                headers[key[15:]] = str(value) if operation == "set" else ""
            elif key:
                self.migration.note(f"{name}: the change of {key} has no counterpart")
        own = rule.tree("fallback")
        chain = own.texts("models") if own.text("mode") == "model-chain" else [] if own.names else after
        targets = self._targets([model, *chain])
        if not targets:
            self.migration.note(f"{name}: names no model and is left out")
            return
        if body or headers:
            targets[0] = _with_changes(targets[0], body, self._headers(name, headers))
        retries = int(own.number("retryCount") or 0) if own.text("mode") == "retry" else 0
        self._rule(name, match, targets, **({"failover": {"retries": min(retries, 10)}} if retries else {}))

    # the rest

    def _clients(self) -> None:
        secrets = [self._tree.text("APIKEY")]
        secrets += [one.text("key") for one in self._tree.trees("APIKEYS")]
        secrets = list(dict.fromkeys(secret for secret in secrets if secret))
        if len(secrets) == 1:
            self.migration.client(secrets[0])
        elif secrets:
            self.migration.settings["clients"] = {
                f"client-{i}": self.migration.secret(f"CLIENT_SECRET_{i}", secret)
                for i, secret in enumerate(secrets, 1)
            }

    def _leftovers(self, router: Tree) -> None:
        tree, gateway = self._tree, self._tree.tree("gateway")
        host, port = tree.text("HOST") or gateway.text("host"), tree.number("PORT") or gateway.number("port")
        if port or host:
            if port and not 1 <= port <= 65535:
                raise SourceError("expected a port", tree.at("PORT"))
            listen(self.migration, host, int(port or 3456))
        if level := LEVELS.get(tree.text("LOG_LEVEL").lower()):
            self.migration.settings["log"] = {"level": level}
        if path := tree.text("CUSTOM_ROUTER_PATH"):
            self.migration.note(
                f"CUSTOM_ROUTER_PATH ({path}): write what it decides as rules; match has many conditions"
            )
        tree.take(*_SILENT)
        for name in tree.left:
            self.migration.note(f"{name} has no counterpart")
        for name in router.left:
            self.migration.note(f"Router.{name} has no counterpart")


def _transformers(transformer: Tree) -> dict[str, Any]:
    """Options by the lower-case name of the transformer: an item of `use` is a name, or name and options."""
    found: dict[str, Any] = {}
    for place, item in transformer.items("use"):
        parts = item if isinstance(item, list) and item else [item]
        if not isinstance(parts[0], str):
            raise SourceError("expected the name of a transformer", place)
        found[parts[0].lower()] = parts[1] if len(parts) > 1 else None
    return found


def _options(options: Any) -> dict[str, Any]:
    return options if isinstance(options, dict) else {}


def _most_tokens(used: dict[str, Any]) -> int | None:
    most = _options(used.get("maxtoken")).get("max_tokens")
    return most if isinstance(most, int) and most > 0 else None


def _bodies(transformer: Tree) -> dict[str, dict[str, Any]]:
    """What OpenRouter is told for single models, such as which hosts may serve them."""
    found = {
        model: _options(_transformers(transformer.tree(model)).get("openrouter"))
        for model in transformer.names
        if model != "use"
    }
    return {model: body for model, body in found.items() if body}


def _match(rule: Tree) -> Any:
    """Conditions of ours for the one of a rule; None where there are none."""
    if rule.text("type") == "model-prefix" and "condition" not in rule:
        return f"{glob(rule.text('pattern'))}*"
    condition = rule.tree("condition")
    left, operator, right = (
        condition.text("left"),
        condition.text("operator"),
        condition.text("right").strip("\"'"),
    )
    patterns = {
        "==": glob(right),
        "starts-with": f"{glob(right)}*",
        "contains": f"*{glob(right)}*",
        "contains-deep": f"*{glob(right)}*",
    }
    pattern = patterns.get(operator)
    if pattern is None or not right:
        return None
    if left == "request.body.model":
        return pattern
    if left.startswith("request.header."):
        return {"header": {left.removeprefix("request.header."): pattern}}
    if left == "request.body.tools":
        return {"tools": pattern}
    if left.startswith("request.body.messages") and operator == "contains-deep" and "image" in right:
        return {"images": True}
    if left == "request.body.stream" and operator == "==":
        return {"stream": right == "true"}
    if left == "request.body.thinking.type":
        return {"thinking": right != "disabled"}
    return None


def _literal(written: Any) -> Any:
    """A value of a rewrite: JSON where it is that, else text."""
    try:
        return json.loads(written) if isinstance(written, str) else written
    except ValueError:
        return str(written).strip("'")


def _with_changes(target: Any, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    if isinstance(target, str):
        provider, _, model = target.partition("/")
        target = {"provider": provider, "model": model}
    if body:
        target["body"] = {"set": {**target.get("body", {}).get("set", {}), **body}}
    if headers:
        target["headers"] = headers
    return dict(target)
