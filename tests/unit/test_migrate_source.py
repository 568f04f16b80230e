"""Which configurations are recognised, by their content, and what is said of others."""

import json
import sqlite3
from contextlib import closing

import pytest
import yaml
from click.testing import CliRunner

from signalbox.cli.init import init_command
from signalbox.config.load import load
from signalbox.migrate import source
from signalbox.migrate.form import Migration, SourceError


@pytest.fixture
def written(tmp_path):
    """Writes a file of this name and gives its path."""

    def write(name: str, text: str | bytes):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refusal(path) -> str:
    with pytest.raises(SourceError) as refused:
        source.migrate(path)
    return str(refused.value).removeprefix(f"{path.parent}/")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (".env", "A=1\nthis is no setting\n", ".env:2: expected NAME=VALUE"),
        (".env", "SOMETHING=else\n", ".env:1: no router is known whose .env has these settings"),
        (".env", "HAIKU_PROVIDER_BASE_URL=nowhere\n", ".env:1: this is not a URL that can be asked"),
        (".env", "\nZAI_API_KEY=k\nPORT=many\n", ".env:3: PORT should be a number"),
        (".env", "ZAI_API_KEY=k\nPORT=99999\n", ".env:2: PORT should be a port"),
        (
            ".env",
            "ZAI_API_KEY=k\nWEEK_START_DAY=someday\n",
            ".env:2: WEEK_START_DAY should be a day of the week",
        ),
        (
            ".env",
            "ZAI_WEEKLY_QUOTA=lots\nZAI_API_KEY=k\n",
            ".env:1: ZAI_WEEKLY_QUOTA should be a number of tokens",
        ),
        (".env", "POSTGRES_HOST=db\n", ".env:1: it names no provider"),
        (".env", "LITELLM_URL=http://h:4000\nSEED_STOCK_MODELS=[1]\n", ".env:2: SEED_STOCK_MODELS should be"),
        ("empty", "\n", "empty:1: it is empty"),
        ("config.json", '{"Providers": [\n}', "config.json:2: this is not JSON"),
        ("config.json", "[" * 100_000, "config.json:1: this is not JSON: nested too deep"),
        ("config.json", "{}", "config.json:1: no router is known whose configuration looks like this"),
        ("config.json", '{"Providers": {}}', "config.json: expected a list (at $.Providers)"),
        (
            "config.json",
            '{"Providers": [{"name": 1}, 2]}',
            "config.json: expected keys and values (at $.Providers[1])",
        ),
        ("config.json", '{"Providers": [{}]}', "config.json: this provider has no name (at $.Providers[0])"),
        (
            "config.json",
            '{"Providers": [{"name": "a", "api_base_url": "ftp://x"}]}',
            "config.json: this is not a URL that can be asked: it must begin with https://",
        ),
        ("config.yaml", "model_list: [a: b", "config.yaml:1: this is not YAML"),
        ("config.yaml", "model_list: [{model_name: a}]", "config.yaml: expected model_name, and model"),
        ("config.yaml", "model_list: []", "config.yaml: no model of the list can be asked (at $.model_list)"),
        ("rules.yaml", "providers: {}\nrules: []\n", "rules.yaml:1: this is a rules.yaml already"),
        ("latin", b"A=\xe4\n", "latin:1: this is not UTF-8 text"),
        (
            "backup.sql",
            "-- CC Switch SQLite \n",
            "backup.sql:1: this is an export of cc-switch: give its database",
        ),
        ("settings.json", '{"env": {}}', "settings.json"),
    ],
)
def test_what_cannot_be_migrated_is_refused_with_its_place(written, name, text, said):
    path = written(name, text)
    if name == "settings.json":  # only Anthropic's own login: rules that say so
        assert source.migrate(path).providers == {
            "anthropic": {"url": "https://api.anthropic.com", "auth": "client"}
        }
    else:
        assert refusal(path).startswith(said)


def test_a_refusal_is_one_line_and_writes_nothing(written, tmp_path):
    path = written(".env", "OTHER=secret-for-tests\n")
    told = CliRunner().invoke(init_command, ["--from", str(path), "--out", str(tmp_path / "new")])
    assert told.exit_code == 1
    assert told.stderr.count("\n") == 1
    assert "secret-for-tests" not in told.output
    assert not (tmp_path / "new").exists()


def test_of_a_folder_the_known_file_is_read(written, tmp_path):
    written("notes.txt", "nothing")
    written("config.json", json.dumps({"Providers": [], "Router": {}}))
    assert source.migrate(tmp_path).origin == "a configuration of claude-code-router"


def test_a_folder_without_a_known_file_is_refused(tmp_path):
    assert "there is none of config.sqlite" in refusal(tmp_path)


def test_a_variable_in_the_value_of_another_is_put_in(written):
    migration = source.migrate(
        written(".env", "HOST_NAME=api.z.ai\nZAI_BASE_URL=https://${HOST_NAME}/api/anthropic\n")
    )
    assert migration.providers["zai"]["url"] == "https://api.z.ai/api/anthropic"


def test_an_empty_fallback_becomes_a_500(written):
    migration = source.migrate(
        written(".env", "LITELLM_URL=http://127.0.0.1:4000\nLITELLM_FALLBACK_HAIKU=\n")
    )
    ends = {rule.get("name"): rule["to"][-1] for rule in migration.rules if isinstance(rule["to"], list)}
    assert ends["haiku"]["reject"] == 500
    assert ends["sonnet"] == "litellm/claude-sonnet-4-6"


CCR = {
    "Providers": [
        {
            "name": "zai",
            "baseUrl": "https://api.z.ai/api/anthropic",
            "api_key": "zai-key-for-tests",
            "models": ["glm-4.7"],
            "capabilities": [{"type": "anthropic_messages", "baseUrl": "https://api.z.ai/api/anthropic"}],
        },
    ],
    "Router": {"rules": [], "fallback": {"mode": "off", "models": []}},
    "profile": {"claudeCode": {"model": "zai/glm-4.7"}},
}


def test_claude_code_router_3_keeps_its_configuration_in_a_database(tmp_path):
    path = tmp_path / "config.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE app_config (key TEXT PRIMARY KEY, value_json TEXT, updated_at TEXT)")
        database.execute("CREATE TABLE api_keys (id TEXT, name TEXT, encrypted_key TEXT, encryption TEXT)")
        database.execute(
            "INSERT INTO app_config VALUES ('theme', '\"dark\"', ''), ('config', ?, '')", [json.dumps(CCR)]
        )
        database.execute("INSERT INTO api_keys VALUES ('1', 'me', 'client-secret-for-tests', 'plain')")
    migration = source.migrate(tmp_path)
    assert migration.rules[-1] == {"name": "default", "match": "*", "to": ["zai/glm-4.7"]}
    assert migration.variables == {
        "ZAI_API_KEY": "zai-key-for-tests",
        "CLIENT_SECRET": "client-secret-for-tests",
    }


def cc_switch(path, *, failover: bool) -> Migration:
    """Of a database with three providers, of which one is selected and two are in the queue."""
    env = {
        "ANTHROPIC_BASE_URL": "https://api.z.ai/api/anthropic",
        "ANTHROPIC_AUTH_TOKEN": "zai-key-for-tests",
    }
    responses = {
        "ANTHROPIC_BASE_URL": "https://relay.example.com/v1",
        "ANTHROPIC_API_KEY": "relay-key-for-tests",
    }
    providers = [
        ("a", "Official", {}, {}, 0, 1),
        ("b", "Z.ai", env, {"maxOutputTokens": 32000}, 1, 0),
        ("c", "Relay", responses, {"apiFormat": "openai_chat"}, 0, 1),
    ]
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "CREATE TABLE providers (id TEXT, app_type TEXT, name TEXT, settings_config TEXT, meta TEXT,"
            " sort_index INTEGER, created_at INTEGER, is_current BOOLEAN, in_failover_queue BOOLEAN)"
        )
        database.execute("INSERT INTO providers VALUES ('x', 'codex', 'X', '{}', '{}', 0, 0, 1, 1)")
        for place, (id, name, settings, meta, current, queued) in enumerate(providers):
            config = json.dumps({"env": settings})
            row = (id, "claude", name, config, json.dumps(meta), place, 0, current, queued)
            database.execute("INSERT INTO providers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        database.execute(
            "CREATE TABLE proxy_config (app_type TEXT, proxy_enabled INTEGER, listen_address TEXT,"
            " listen_port INTEGER, auto_failover_enabled INTEGER, circuit_failure_threshold INTEGER,"
            " circuit_timeout_seconds INTEGER)"
        )
        database.execute(
            "INSERT INTO proxy_config VALUES ('claude', 1, '127.0.0.1', 15721, ?, 8, 90)", [failover]
        )
    return source.migrate(path)


def test_the_failover_queue_of_cc_switch_follows_the_selected_provider(tmp_path):
    migration = cc_switch(tmp_path / "cc-switch.db", failover=True)
    assert migration.rules == [{"name": "selected", "match": "*", "to": ["z-ai", "anthropic", "relay"]}]
    assert migration.settings["listen"] == {"main": "127.0.0.1:15721"}
    assert migration.providers["relay"]["circuit"] == {"open_after": 8, "cooldown": "90s"}
    assert migration.providers["relay"]["api"] == "openai"
    assert migration.providers["z-ai"]["max_tokens"] == 32000


def test_a_queue_that_is_not_in_use_is_reported_and_left_out(tmp_path):
    migration = cc_switch(tmp_path / "cc-switch.db", failover=False)
    assert migration.rules == [{"name": "selected", "match": "*", "to": ["z-ai"]}]
    assert "automatic failover is off, and its queue is left out: anthropic, relay" in migration.notes


def test_a_database_of_something_else_is_refused(tmp_path):
    with closing(sqlite3.connect(tmp_path / "config.sqlite")) as database, database:
        database.execute("CREATE TABLE other (a TEXT)")
    assert "no router is known whose database has these tables" in refusal(tmp_path / "config.sqlite")


def test_a_damaged_database_is_refused(written):
    path = written("cc-switch.db", b"SQLite format 3\x00" + b"\x00" * 2000)
    assert "this database cannot be read" in refusal(path)


def test_control_characters_of_a_name_do_not_break_out_of_the_comment(written, tmp_path):
    name = "x\n    providers: {}\n\x1b[31m"
    path = written("config.json", json.dumps({"Providers": [{"name": name, "enabled": False}], "Router": {}}))
    told = CliRunner().invoke(init_command, ["--from", str(path), "--out", str(tmp_path / "new")])
    assert told.exit_code == 0
    text = (tmp_path / "new/rules.yaml").read_text()
    assert yaml.safe_load(text)["providers"].keys() == {"anthropic"}
    assert "\x1b" not in text + told.stderr


@pytest.mark.parametrize("key", ["it's", 'a"b', "back\\slash", "a b#c", "${X}", "$X", "=", "'"])
def test_any_key_arrives_as_it_was(written, tmp_path, key):
    config = {
        "Providers": [
            {"name": "a", "api_base_url": "http://127.0.0.1:9/v1", "api_key": "x" + key, "models": []}
        ]
    }
    path = written("config.json", json.dumps(config))
    assert (
        CliRunner().invoke(init_command, ["--from", str(path), "--out", str(tmp_path / "new")]).exit_code == 0
    )
    provider = load(tmp_path / "new/rules.yaml", {}).providers["a"]
    assert provider.key == "x" + key
