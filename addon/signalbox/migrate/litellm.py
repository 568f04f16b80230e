"""LiteLLM: `config.yaml` of its proxy.

Facts: https://docs.litellm.ai/docs/proxy/config_settings and .../proxy/reliability.
"""

from typing import Any

from signalbox.migrate.form import (
    ANTHROPIC,
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

_REFERENCE = "os.environ/"
_ADDRESSES = {
    "openai": "https://api.openai.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "deepseek": "https://api.deepseek.com",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/openai",
    "ollama": "http://localhost:11434/v1",
    "ollama_chat": "http://localhost:11434/v1",
    "groq": "https://api.groq.com/openai/v1",
    "mistral": "https://api.mistral.ai/v1",
    "xai": "https://api.x.ai/v1",
    "moonshot": "https://api.moonshot.ai/v1",
    "zai": "https://api.z.ai/api/paas/v4",
    "minimax": "https://api.minimax.io/v1",
    "together_ai": "https://api.together.xyz/v1",
    "fireworks_ai": "https://api.fireworks.ai/inference/v1",
    "cerebras": "https://api.cerebras.ai/v1",
    "nvidia_nim": "https://integrate.api.nvidia.com/v1",
    "dashscope": "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
    "hosted_vllm": "",
    "vllm": "",
    "lm_studio": "",
    "litellm_proxy": "",
    "custom_openai": "",
    "openai_like": "",
}
"""Chat completions by the part of `model` before the slash; empty where `api_base` must be given."""
_KEYS = {
    "gemini": "GEMINI_API_KEY", "together_ai": "TOGETHERAI_API_KEY", "fireworks_ai": "FIREWORKS_AI_API_KEY",
    "ollama": "", "ollama_chat": "", "hosted_vllm": "", "vllm": "", "lm_studio": "", "azure": "AZURE_API_KEY",
    "custom_openai": "", "openai_like": "", "litellm_proxy": "LITELLM_PROXY_API_KEY",
}  # fmt: skip
"""Variables that LiteLLM itself reads where `api_key` is missing, if they are not NAME_API_KEY."""
_LOGGING = (
    "success_callback", "failure_callback", "callbacks", "set_verbose", "drop_params", "modify_params",
    "json_logs", "turn_off_message_logging", "telemetry", "service_callbacks", "store_model_in_db",
    "store_prompts_in_spend_logs",
)  # fmt: skip
_SAMPLING = ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty", "reasoning_effort")


def recognises(tree: dict[str, Any]) -> bool:
    return "model_list" in tree


def migrate(tree: dict[str, Any]) -> Migration:
    """Raises SourceError."""
    return _Reader(Tree(tree)).migration


class _Reader:
    def __init__(self, tree: Tree) -> None:
        self.migration = Migration("a configuration of LiteLLM")
        self._tree = tree
        self._router = tree.tree("router_settings")
        self._settings = tree.tree("litellm_settings")
        self._general = tree.tree("general_settings")
        self._groups: dict[str, list[tuple[int, Any]]] = {}
        """Targets with their order, by the name of the model."""
        for name in (variables := tree.tree("environment_variables")).names:
            self.migration.variables[variable_name(name)] = variables.text(name)
        for entry in tree.trees("model_list"):
            self._add_deployment(entry)
        if not self._groups:
            raise SourceError("no model of the list can be asked", "$.model_list")
        self._add_rules()
        self._limits()
        if secret := self._general.text("master_key"):
            self._client(secret)
        self._leftovers()

    def _add_deployment(self, entry: Tree) -> None:
        name, params = entry.text("model_name"), entry.tree("litellm_params")
        model = params.text("model")
        if not name or not model:
            raise SourceError("expected model_name, and model in litellm_params", entry.place)
        mode = entry.tree("model_info").text("mode")
        if mode not in ("", "chat", "responses") or model.endswith("/"):
            self.migration.note(f"{name}: left out, it is not for messages")
            return
        kind, _, rest = model.partition("/")
        if not rest:
            kind, rest = ("anthropic" if model.startswith("claude") else "openai"), model
        found = self._provider(kind, rest, params, name)
        if found is None:
            return
        provider, sent = found
        if "*" in sent and name.endswith("/*") and kind != "anthropic":
            self.migration.note(f"{name}: {name.removesuffix('*')} is sent on as part of the model's name")
        self._prices(provider, sent, entry.tree("model_info"))
        target: Any = provider if "*" in sent else f"{provider}/{sent}"
        if changes := {key: value for key in _SAMPLING if (value := params.take(key)) is not None}:
            target = {"provider": provider, "model": sent, "body": {"set": changes}}
        for ignored in params.left:
            if ignored not in ("model", "weight", "rpm", "tpm", "max_parallel_requests", "stream"):
                self.migration.note(f"{name}: {ignored} has no counterpart")
        if params.take("rpm", "tpm") is not None:
            self.migration.note(
                "rpm and tpm have no counterpart: a provider that throttles is left alone for a time"
            )
        group = self._groups.setdefault(name, [])
        place = (int(params.number("order") or 1), target)
        if place not in group:
            group.append(place)

    def _provider(self, kind: str, model: str, params: Tree, name: str) -> tuple[str, str] | None:
        """The name of the provider, and the model as it is sent."""
        url, place = params.text("api_base", "base_url"), params.at("api_base")
        if url.startswith(_REFERENCE):
            url = self._variable(url)
        if kind == "openai" and url and "/responses" in url:
            model = model.removeprefix("responses/")
        if kind not in ("anthropic", "azure", *_ADDRESSES):
            if not url:
                self.migration.note(f"{name}: left out, {kind} has no counterpart")
                return None
            kind, model = "openai", f"{kind}/{model}"
        key = self._key(kind, params)
        if kind == "anthropic":
            settings = messages_provider(base_url(url, "anthropic", place) if url else ANTHROPIC, key)
        elif kind == "azure":
            settings = self._azure(url, model, params, key)
        else:
            address = url or _ADDRESSES[kind]
            if not address:
                raise SourceError(f"{kind} needs an api_base", params.place)
            if kind.startswith("ollama") and not address.rstrip("/").endswith("/v1"):
                address = f"{address.rstrip('/')}/v1"
            settings = chat_provider(base_url(address, "openai", place), key)
        if headers := params.tree("extra_headers").names:
            tree = params.tree("extra_headers")
            settings["headers"] = {one: self._header(name, one, tree.text(one)) for one in headers}
        if most := params.number("max_tokens"):
            settings["max_tokens"] = int(most)
        if seconds := params.number("timeout", "stream_timeout"):
            settings["timeout"] = {"first_byte": duration(seconds)}
        extra = params.tree("extra_body")
        if extra.names:
            settings["body"] = {"set": {one: extra.take(one) for one in extra.names}}
        return self.migration.provider(kind.replace("_", "-"), settings), model

    def _azure(self, url: str, model: str, params: Tree, key: str | None) -> dict[str, Any]:
        """Of Azure's older addresses the path names the deployment."""
        if not url:
            raise SourceError("azure needs an api_base", params.place)
        version = params.text("api_version")
        if "/openai/v1" in url:
            return {
                **chat_provider(base_url(url, "openai", params.at("api_base")), key),
                "key_header": "api-key",
            }
        if "/openai/deployments/" not in url:
            url = f"{url.rstrip('/')}/openai/deployments/{model}"
        settings = chat_provider(base_url(url, "openai", params.at("api_base")), key)
        return {**settings, "key_header": "api-key", "query": {"api-version": version or "2024-10-21"}}

    def _key(self, kind: str, params: Tree) -> str | None:
        written = params.text("api_key")
        usual = _KEYS.get(kind, f"{variable_name(kind)}_API_KEY")
        if written.startswith(_REFERENCE):
            return self.migration.secret(usual, f"${{{written.removeprefix(_REFERENCE)}}}")
        if written:
            return self.migration.secret(usual or f"{variable_name(kind)}_API_KEY", written)
        return self.migration.secret(usual, f"${{{usual}}}") if usual else None

    def _variable(self, written: str) -> str:
        """A variable in a place that is no secret: its value, where the file has it."""
        name = written.removeprefix(_REFERENCE)
        if value := self.migration.variables.get(name):
            return value
        raise SourceError(f"{name} is not in environment_variables: write the address itself")

    def _header(self, name: str, header: str, value: str) -> str:
        if value.startswith(_REFERENCE):
            value = f"${{{value.removeprefix(_REFERENCE)}}}"
        return self.migration.secret(f"{variable_name(name)}_{variable_name(header)}", value)

    def _prices(self, provider: str, model: str, info: Tree) -> None:
        """LiteLLM counts dollars per token, rules.yaml per million."""
        names = {
            "input": "input_cost_per_token",
            "output": "output_cost_per_token",
            "cache_read": "cache_read_input_token_cost",
            "cache_write": "cache_creation_input_token_cost",
        }
        prices = {
            key: round(cost * 1e6, 6)
            for key, name in names.items()
            if (cost := info.number(name)) is not None
        }
        if prices:
            self.migration.providers[provider].setdefault("prices", {})[glob(model)] = prices

    def _add_rules(self) -> None:
        fallbacks = self._fallbacks()
        default = self._texts("default_fallbacks")
        aliases = self._aliases()
        names = sorted(
            self._groups, key=lambda name: ("*" in name, -len(name)) if "*" in name else (False, 0)
        )
        for name in names:
            chain = _choices(self._groups[name])
            for other in fallbacks.get(name, default):
                chain += [one for one in _choices(self._groups.get(other, [])) if one not in chain]
                if other not in self._groups:
                    self.migration.note(f"the fallback {other} is no model of the list")
            globs = [_pattern(one) for one in (name, *aliases.get(name, ()))]
            self.migration.rules.append({"match": list(dict.fromkeys(globs)), "to": chain})
        if "*" not in self._groups:
            self._add_last_rule(default)

    def _add_last_rule(self, default: list[str]) -> None:
        """LiteLLM refuses names that are not in its list, unless it has default fallbacks."""
        if chain := [one for other in default for one in _choices(self._groups.get(other, []))]:
            self.migration.rules.append({"name": "default", "match": "*", "to": chain})
            return
        refused = {"reject": 404, "message": "No rule names this model."}
        self.migration.rules.append({"name": "unknown", "match": "*", "to": refused})
        self.migration.note(
            "models that the list does not name are refused, as before; variables such as"
            " ANTHROPIC_DEFAULT_SONNET_MODEL say which of them Claude Code asks for"
        )

    def _fallbacks(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for settings in (self._router, self._settings):
            for one in settings.trees("fallbacks"):
                for name in one.names:
                    found.setdefault(name, one.texts(name))
            for kind in ("context_window_fallbacks", "content_policy_fallbacks"):
                if settings.take(kind):
                    self.migration.note(
                        f"{kind} has no counterpart; match: {{tokens_over: N}} finds long requests"
                    )
        return found

    def _texts(self, name: str) -> list[str]:
        return self._router.texts(name) or self._settings.texts(name)

    def _aliases(self) -> dict[str, list[str]]:
        """Further names of each model."""
        found: dict[str, list[str]] = {}
        tree = self._router.tree("model_group_alias")
        for alias in tree.names:
            target = tree.take(alias)
            name = target.get("model") if isinstance(target, dict) else target
            if isinstance(name, str):
                found.setdefault(name, []).append(alias)
        return found

    def _limits(self) -> None:
        seconds = self._router.number("timeout") or self._settings.number("request_timeout")
        fails = self._router.number("allowed_fails") or self._settings.number("allowed_fails")
        cooldown = self._router.number("cooldown_time") or self._settings.number("cooldown_time")
        retries = self._router.number("num_retries") or self._settings.number("num_retries")
        for provider in self.migration.providers.values():
            if seconds:
                provider.setdefault("timeout", {"first_byte": duration(seconds)})
            circuit: dict[str, Any] = {"open_after": int(fails)} if fails else {}
            if cooldown:
                circuit["cooldown"] = duration(cooldown)
            if circuit:
                provider["circuit"] = circuit
        if retries:
            self.migration.settings["failover"] = {"retries": int(min(retries, 10))}

    def _client(self, secret: str) -> None:
        if secret.startswith(_REFERENCE):
            secret = f"${{{secret.removeprefix(_REFERENCE)}}}"
        self.migration.client(secret)
        self.migration.note(
            "virtual keys, teams and users have no counterpart; each caller is one of clients"
        )

    def _leftovers(self) -> None:
        for name, tree in (
            ("router_settings", self._router),
            ("litellm_settings", self._settings),
            ("general_settings", self._general),
        ):
            tree.take(*_LOGGING)
            for left in tree.left:
                self.migration.note(f"{name}.{left} has no counterpart")
        for left in self._tree.left:
            self.migration.note(f"{left} has no counterpart")


def _choices(group: list[tuple[int, Any]]) -> list[Any]:
    """Equals of the same order form a set, of which each session keeps one."""
    orders = sorted({order for order, _ in group})
    sets = [[target for order, target in group if order == wanted] for wanted in orders]
    return [one[0] if len(one) == 1 else one for one in sets]


def _pattern(name: str) -> str:
    """A name as glob: `*` stays what it is. The router takes `anthropic/` off before it matches."""
    if name.startswith("anthropic/"):
        name = "claude-*" if name == "anthropic/*" else name.removeprefix("anthropic/")
    return "*".join(glob(part) for part in name.split("*"))
