"""rules.yaml, `.env` and the environment into rules, or into errors with their lines."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.config.fields import Secret
from signalbox.config.load import RulesError, load, parse
from signalbox.config.rules import Rules

FILE = Path("/nowhere/rules.yaml")
ONE_PROVIDER = "providers:\n  zai: {url: https://api.z.ai, key: zai-key-for-tests}\n"


def errors_of(text: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(RulesError) as caught:
        parse(text, file=FILE, environ=environ)
    assert str(caught.value) == "\n".join(caught.value.errors)
    return caught.value.errors


CONDITIONS = (
    "model", "tier", "path", "port", "client", "agent", "class", "project", "tools", "system", "prompt",
)  # fmt: skip


@pytest.mark.parametrize(
    ("match", "path"),
    [*((f"{{{key}: []}}", key) for key in CONDITIONS), ("{header: {x-team: []}}", "header.x-team")],
)
def test_conditions_that_nothing_fulfils_are_errors(match, path):
    """A list means any of."""
    (error,) = errors_of(ONE_PROVIDER + f"rules: [{{match: {match}, to: zai}}]")
    assert error == f"rules.yaml:3: this list is empty (at $.rules[0].match.{path})"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("modle: 1", '1: unknown key "modle" (at $)'),
        ("provider: {}", '1: unknown key "provider", did you mean "providers"? (at $)'),
        (
            ONE_PROVIDER + 'rules:\n  - to: zai\n    match: {modle: "*"}',
            '5: unknown key "modle", did you mean "model"? (at $.rules[0].match)',
        ),
        (
            ONE_PROVIDER + 'rules:\n  - match: "*"\n    to: zai\n    modle: x',
            '6: unknown key "modle", did you mean "model"? It belongs under match (at $.rules[0])',
        ),
        (
            ONE_PROVIDER + 'rules:\n  - match: "*"\n    to: zai\n    tier: opus',
            '6: unknown key "tier": it belongs under match (at $.rules[0])',
        ),
        (
            ONE_PROVIDER + 'rules:\n  - match: "*"\n    to: [zay/x, zai]',
            '5: unknown provider "zay", did you mean "zai"? (at $.rules[0].to[0])',
        ),
        (
            ONE_PROVIDER + 'rules:\n  - match: "*"\n    to: [[zai, {provider: zia}]]',
            '5: unknown provider "zia", did you mean "zai"? (at $.rules[0].to[0][1].provider)',
        ),
        (ONE_PROVIDER + 'rules:\n  - match: "*"\n    to: []', "5: this list is empty (at $.rules[0].to)"),
        (
            ONE_PROVIDER + 'rules:\n  - match: "*"\n    to: [[]]',
            "5: this list is empty (at $.rules[0].to[0])",
        ),
        (ONE_PROVIDER + 'rules:\n  - match: "*"\n    to:\n', '4: the key "to" is missing (at $.rules[0])'),
        (ONE_PROVIDER + "rules:\n  - to: zai", '4: the key "match" is missing (at $.rules[0])'),
        (
            ONE_PROVIDER + 'rules:\n  - match: "[x"\n    to: zai',
            '4: expected a glob, got "[x": "[" is not closed (at $.rules[0].match)',
        ),
        (
            ONE_PROVIDER + 'rules:\n  - match: {quota: {zia.7d: ">80"}}\n    to: zai',
            '4: unknown provider "zia", did you mean "zai"? (at $.rules[0].match.quota)',
        ),
        (
            ONE_PROVIDER + "rules:\n  - match: {port: work}\n    to: zai",
            '4: unknown listener "work" (at $.rules[0].match.port)',
        ),
        (
            ONE_PROVIDER + "rules:\n  - match: {stream: yes}\n    to: zai",
            '4: expected true or false, got "yes" (at $.rules[0].match.stream)',
        ),
        (
            ONE_PROVIDER + 'rules:\n  - match: "*"\n    to: [{reject: 429}, zai]',
            "5: reject must be the last of the list (at $.rules[0].to[0])",
        ),
        (
            ONE_PROVIDER + 'rules:\n  - match: "*"\n    to: {reject: 200, message: no}',
            '5: expected a status from 400 to 599, got "200" (at $.rules[0].to.reject)',
        ),
        (
            ONE_PROVIDER + 'rules:\n  - match: "*"\n    to: ZAI',
            '5: unknown provider "ZAI", did you mean "zai"? (at $.rules[0].to)',
        ),
        ("RULES: []", '1: unknown key "RULES", did you mean "rules"? (at $)'),
        (
            "fail: OPEN",
            '1: expected open or closed, got "OPEN", did you mean "open"? (at $.fail)',
        ),
        ("picker: True", '1: expected true or false, got "True", did you mean "true"? (at $.picker)'),
        (
            "failover: {on: [Timeout]}",
            (
                "1: expected auth, connect, timeout, stream_error or a status from 400 to 599, "
                'got "Timeout", did you mean "timeout"? (at $.failover.on[0])'
            ),
        ),
        (
            "providers: {a: {url: https://h, models: lst}}",
            (
                "1: expected list or a list, each item the id of a model or keys and values, "
                'got "lst", did you mean "list"? (at $.providers.a.models)'
            ),
        ),
        (
            "providers: {a: {url: https://h, beta: all}}",
            (
                "1: expected forward, learn or drop, or a list, each item the name of a beta, "
                'got "all" (at $.providers.a.beta)'
            ),
        ),
        ("rules: zai", "1: expected a list, got text (at $.rules)"),
        ("providers:\n  - zai", "2: expected keys and values, got a list (at $.providers)"),
        ("providers:\n  zai:", '2: the key "url" is missing (at $.providers.zai)'),
        (
            "providers: {z.ai: {url: https://h}}",
            '1: expected a name of letters, digits, _ and -, got "z.ai" (at $.providers)',
        ),
        (
            "providers: {a: {url: https://h, auth: client, key: k}}",
            "1: auth: client uses no key: remove the key (at $.providers.a.auth)",
        ),
        (
            "providers: {a: {url: https://h, auth: none, keys: ['${K}']}}",
            "1: auth: none uses no key: remove the key (at $.providers.a.auth)",
        ),
        *(
            (
                ONE_PROVIDER + f'rules: [{{match: "*", to: zai, name: "{name}"}}]',
                (
                    f'3: expected the name of a rule, got "{name}": none, fail-open and #NUMBER have '
                    "meanings of their own in x-signalbox-rule (at $.rules[0].name)"
                ),
            )
            for name in ("none", "fail-open", "#2")
        ),
        (
            ONE_PROVIDER + 'rules: [{match: "*", to: ["zai/{modle}"]}]',
            (
                '3: expected provider or provider/model, got "zai/{modle}": '
                "unknown placeholder, did you mean {model}? (at $.rules[0].to[0])"
            ),
        ),
        (
            ONE_PROVIDER + 'rules: [{match: "*", to: {provider: zai, model: "x-{ model }"}}]',
            (
                '3: expected the name of a model, got "x-{ model }": '
                "unknown placeholder, did you mean {model}? (at $.rules[0].to.model)"
            ),
        ),
        (
            "providers: {a: {url: https://h, auth: key}}",
            "1: auth: key needs a key (at $.providers.a.auth)",
        ),
        (
            "providers: {a: {url: https://h, key: k, keys: [l]}}",
            "1: give either key or keys (at $.providers.a.keys)",
        ),
        (
            "providers: {a: {url: https://h, key: {file: a, command: [b]}}}",
            "1: give either file or command (at $.providers.a.key)",
        ),
        (
            "providers: {a: {url: https://h/x/v1/messages}}",
            '1: leave "/v1/messages" off: write https://h/x (at $.providers.a.url)',
        ),
        (
            "providers: {a: {url: https://h/x/v1/}}",
            (
                '1: leave "/v1" off: write https://h/x, or add api: openai or api: responses '
                "(at $.providers.a.url)"
            ),
        ),
        (
            "providers: {a: {url: https://h/v1/chat/completions, api: openai}}",
            '1: leave "/chat/completions" off: write https://h/v1 (at $.providers.a.url)',
        ),
        (
            "providers: {a: {url: https://h/v1, api: openai, auth: client}}",
            "1: auth: client is Anthropic's: api: openai takes a key or none (at $.providers.a.auth)",
        ),
        (
            "providers: {a: {url: https://h/v1, api: openai, count_tokens: forward}}",
            ("1: api: openai cannot count tokens: write estimate or reject (at $.providers.a.count_tokens)"),
        ),
        (
            "providers: {a: {url: https://h, api: responses, count_tokens: forward}}",
            "1: api: responses cannot count tokens: write estimate or reject (at $.providers.a.count_tokens)",
        ),
        (
            "providers: {a: {url: https://h/v1/responses, api: responses}}",
            '1: leave "/responses" off: write https://h/v1 (at $.providers.a.url)',
        ),
        (
            "providers: {a: {url: https://h/v1/responses}}",
            "1: this URL is for api: responses, with /responses left off (at $.providers.a.url)",
        ),
        (
            "providers: {a: {url: https://h, api: {}}}",
            "1: api by model names no model (at $.providers.a.api)",
        ),
        (
            "providers: {a: {url: https://h, api: {'gpt-*': responses, '*': anthropic}, auth: client}}",
            "1: auth: client is Anthropic's: api: responses takes a key or none (at $.providers.a.auth)",
        ),
        (
            "providers: {a: {url: https://h, api: openai, dialect: codex}}",
            (
                "1: api: openai has no dialect codex: expected azure, composer, copilot, deepseek, gemini, "
                "generic, glm, kimi, lmstudio, minimax, mistral, ollama, openai, openrouter, vllm "
                "(at $.providers.a.dialect)"
            ),
        ),
        (
            "providers: {a: {url: https://h, auth: codex-login}}",
            "1: auth: codex-login is for api: responses (at $.providers.a.auth)",
        ),
        (
            "providers: {a: {url: https://h, api: responses, auth: codex-login, key: k}}",
            "1: auth: codex-login uses no key: remove the key (at $.providers.a.auth)",
        ),
        (
            "providers: {a: {url: https://h, api: responses, auth: codex-login, dialect: openai}}",
            "1: auth: codex-login goes with dialect: codex (at $.providers.a.dialect)",
        ),
        (
            "providers: {a: {url: https://h, api: responses, auth: codex-login, quota: {accounts: [b]}}}",
            "1: accounts are config folders of Claude Code (at $.providers.a.quota.accounts)",
        ),
        (
            "providers: {a: {url: https://h, api: responses, auth: codex-login, models: list}}",
            (
                "1: Codex's backend lists models for its own program alone: name them "
                "(at $.providers.a.models)"
            ),
        ),
        (
            "providers: {a: {url: https://h/v1, api: vertex}}",
            "1: the url of api: vertex ends in /projects/PROJECT/locations/LOCATION (at $.providers.a.url)",
        ),
        (
            "providers: {a: {url: https://h/v1/projects/p/locations/l, api: vertex, models: list}}",
            "1: Vertex AI has no list of models: name them (at $.providers.a.models)",
        ),
        (
            "providers: {a: {url: https://us-east5-aiplatform.googleapis.com}}",
            "1: Claude on Vertex AI needs api: vertex (at $.providers.a.url)",
        ),
        (
            "providers: {a: {url: https://h, api: openai, claude: true}}",
            "1: claude: true is for providers that speak the Messages API (at $.providers.a.claude)",
        ),
        (
            "providers: {a: {url: https://h, api: opnai}}",
            (
                "1: expected anthropic, openai, responses or vertex, "
                'got "opnai", did you mean "openai"? (at $.providers.a.api)'
            ),
        ),
        (
            "providers: {a: {url: https://h, timeout: {idle: 5 minutes}}}",
            (
                "1: expected a duration such as 300ms, 60s, 5m, 1h or 7d, "
                'got "5 minutes" (at $.providers.a.timeout.idle)'
            ),
        ),
        ("limits: {body: 32}", '1: expected a size such as 512KB, 10MB or 1GB, got "32" (at $.limits.body)'),
        ("clients: {me: '${NO}'}", "1: NO is not set (at $.clients.me)"),
        ("clients: {me: ''}", "1: expected a secret: the key is empty (at $.clients.me)"),
        ("log:\n  file: ${NO}", "2: NO is not set (at $.log.file)"),
        ("a: 1\nb: [", "2: while parsing a flow node: did not find expected node content (at $)"),
    ],
)
def test_error_names_line_message_and_path(text, error):
    assert errors_of(text) == (f"rules.yaml:{error}",)


def test_all_errors_are_listed_in_the_order_of_the_file():
    text = """
providers:
  a: {url: ftp://h, api: opnai}
  a: {url: https://h}
rules:
  - match: "["
    to: b
fail: never
"""
    lines = [error.split(":")[1] for error in errors_of(text)]
    assert lines == ["3", "3", "4", "6", "7", "8"]


def test_an_error_never_shows_what_a_variable_holds():
    text = """
providers: {a: {url: "${S}", headers: {x: "${S}"}, auth: "${S}"}}
fail: ${S}
limits: {body: "${S}"}
"""
    errors = errors_of(text, S="sk-ant-fake\nsecret")
    assert len(errors) == 5
    assert not any("fake" in error for error in errors)


def test_scalars_are_text_where_text_is_taken():
    rules = parse(
        "providers: {off: {url: https://h, headers: {X-A: on, X-B: 08:30, X-C: 1_0, X-D: }}}\n"
        "rules: [{name: no, match: 2024-01-01, to: off/1.0}]",
        file=FILE,
        environ={},
    )
    assert rules.providers["off"].headers == {"X-A": "on", "X-B": "08:30", "X-C": "1_0", "X-D": ""}
    assert rules.rules[0].label == "no"
    assert rules.rules[0].choices[0][0].model == "1.0"


def test_values_set_in_a_body_mean_what_they_mean_in_json():
    text = """
providers:
  a:
    url: https://h
    body:
      set: {a: 1, b: -0.5e1, c: true, d: null, e: "1", f: [x, 2], g: {h: off}, i: "${N}", j: 007, k: ${N}}
      drop: [top_k]
""".replace("k: ${N}", "k: 1e999")
    edit = parse(text, file=FILE, environ={"N": "5"}).providers["a"].body
    assert edit.drop == ("top_k",)
    assert edit.set == {
        "a": 1, "b": -5.0, "c": True, "d": None, "e": "1", "f": ["x", 2], "g": {"h": "off"}, "i": "5",
        "j": "007", "k": "1e999",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "# nothing\n", "rules: []", "rules:\nproviders:\n", "providers: {}"])
def test_empty_file_is_valid(text):
    assert parse(text, file=FILE, environ={}) == Rules(file=FILE)


def test_anchors_and_merge_keys_spare_repetition():
    text = """
providers:
  a: &a {url: https://h, key: k, headers: {x: y}}
  b: {<<: *a, url: https://i}
"""
    providers = parse(text, file=FILE, environ={}).providers
    assert (str(providers["b"].url), providers["b"].headers) == ("https://i", {"x": "y"})


def test_an_unset_key_makes_its_provider_unavailable_and_nothing_else():
    provider = parse(
        "providers: {zai: {url: https://h, key: '${Z}'}}", file=FILE, environ={"Z": ""}
    ).providers["zai"]
    assert provider.auth == "key"
    assert provider.keys == (Secret(None, "Z is not set"),)
    assert provider.unavailable == "Z is not set"


def test_a_thousand_rules_load_in_well_under_a_second():
    rules = "".join(
        f'  - match: {{model: ["*m{i}*"], thinking: true}}\n    to: [zai/m{i}]\n' for i in range(1000)
    )
    began = time.process_time()
    loaded = parse(ONE_PROVIDER + "rules:\n" + rules, file=FILE, environ={})
    assert len(loaded.rules) == 1000
    assert loaded.rules[-1].line == 2 + 1 + 1999
    assert time.process_time() - began < 1.0


WORDS = st.sampled_from(
    [
        "providers",
        "rules",
        "url",
        "match",
        "to",
        "zai",
        "https://h",
        "*",
        "key",
        "headers",
        "log",
        "quota",
        "${X}",
        "1",
        "",
    ]
)


@given(
    st.recursive(
        WORDS | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    )
)
def test_any_document_gives_rules_or_errors_of_one_line_each(value):
    errors: tuple[str, ...] = ()
    try:
        parse(json.dumps(value), file=FILE, environ={})
    except RulesError as error:
        errors = error.errors
        assert errors
    assert all(error.startswith("rules.yaml:") and len(error.splitlines()) == 1 for error in errors)


def test_files_are_read_and_named(tmp_path):
    (tmp_path / ".env").write_text("ZAI=from-dotenv\nLOG_LEVEL=debug\nOTHER=x\n")
    (tmp_path / "key").write_text(" file-key-for-tests\n")
    (tmp_path / "rules.yaml").write_text(
        "providers:\n  a: {url: https://h, key: '${ZAI}'}\n  b: {url: https://h, key: {file: key}}\n"
    )
    rules = load(tmp_path / "rules.yaml", {"LOG_LEVEL": "warn"}, project=tmp_path)
    assert [rules.providers[name].key for name in "ab"] == ["from-dotenv", "file-key-for-tests"]
    assert rules.reads == (tmp_path / ".env", tmp_path / "key")
    assert (rules.log.level, rules.environment) == ("warn", {"LOG_LEVEL": "warn"})


def test_a_missing_file_is_an_error_that_names_it_and_the_remedy(tmp_path):
    with pytest.raises(RulesError) as raised:
        load(tmp_path / "rules.yaml", {})
    remedy = "`signalbox init` writes one, or name another with --rules"
    assert raised.value.errors == (f"rules.yaml:1: {tmp_path}/rules.yaml does not exist: {remedy} (at $)",)


BROKEN = [
    b"\xff\xfea\0:\0", b"a: \xff", b"a: \0", b"a: [", b"a:\n\t- b", b'a: "', b"rules: *x*", b"a: &a [*a]",
    b"[" * 99_999, b"a: 1\na: 2", b"a: 1\n---\nb: 1", b"nonsense", b"%x", b"a: {<<: 1}",
]  # fmt: skip


@pytest.mark.parametrize("data", BROKEN, ids=lambda data: repr(data[:20]))
def test_broken_file_gives_one_line_per_error_and_no_traceback(tmp_path, data):
    path = tmp_path / "rules.yaml"
    path.write_bytes(data)
    with pytest.raises(RulesError) as caught:
        load(path, {})
    for error in caught.value.errors:
        assert error.startswith("rules.yaml:")
        assert error.splitlines() == [error]


@pytest.mark.parametrize("name", ["rules.yaml", ".env"])
def test_a_folder_in_the_place_of_a_file_is_an_error(tmp_path, name):
    (tmp_path / name).mkdir()
    if name == ".env":
        (tmp_path / "rules.yaml").write_text("")
    with pytest.raises(
        RulesError, match=f"^{name}:1: .* cannot be read: Is a directory|^{tmp_path}/.env:1: "
    ):
        load(tmp_path / "rules.yaml", {})


@pytest.fixture
def project(tmp_path):
    """A project's folder, and rules in another one: `project("text of .env", "text of rules.yaml")`."""
    (tmp_path / "examples").mkdir()

    def written(dotenv: str | bytes, rules: str) -> Rules:
        (tmp_path / ".env").write_bytes(dotenv if isinstance(dotenv, bytes) else dotenv.encode())
        (tmp_path / "examples" / "rules.yaml").write_text(rules)
        return load(tmp_path / "examples" / "rules.yaml", {}, project=tmp_path)

    return written


KEYED = "providers: {zai: {url: https://h, key: '${ZAI}'}}\n"


def test_the_projects_dotenv_is_read_too(project, tmp_path):
    rules = project("ZAI=key-for-tests\n", KEYED)
    assert rules.providers["zai"].key == "key-for-tests"
    assert rules.reads == (tmp_path / "examples" / ".env", tmp_path / ".env")


def test_the_dotenv_beside_the_rules_comes_first(project, tmp_path):
    (tmp_path / "examples" / ".env").write_text("ZAI=first\n")
    assert project("ZAI=second\n", KEYED).providers["zai"].key == "first"


def test_errors_in_a_dotenv_name_the_file_and_the_line(project, tmp_path):
    file = tmp_path / ".env"
    with pytest.raises(RulesError) as caught:
        project(b"A=1\nB=\xff\n", KEYED)
    assert caught.value.errors == (f"{file}:2: this is not UTF-8 text: save the file as UTF-8 (at $)",)
    with pytest.raises(RulesError) as caught:
        project("\nHOST_OF_ZAI=ftp://h\n", "providers: {zai: {url: '${HOST_OF_ZAI}'}}")
    (error,) = caught.value.errors
    assert error.startswith(
        "rules.yaml:1: expected a URL such as https://api.example.com: it must begin with "
    )
    assert error.endswith(f" (HOST_OF_ZAI is set in {file}:2) (at $.providers.zai.url)")


def test_odd_lines_and_values_of_a_dotenv_are_warnings_that_name_it(project, tmp_path):
    file = tmp_path / ".env"
    rules = project("LOG_LEVEL=loud\nZAI=k\u2028y\nwhat is this?\n", KEYED)
    level, key, odd = rules.warnings
    assert level.endswith(f"warn, error, silent (LOG_LEVEL is set in {file}:1) (at $.log.level)")
    assert f"header cannot carry (ZAI is set in {file}:2): provider" in key
    assert odd == f"{file}:3: this line is ignored: expected NAME=VALUE"
    assert rules.providers["zai"].unavailable == "the key holds characters that a header cannot carry"


def test_a_windows_file_with_byte_order_mark_loads(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + ONE_PROVIDER.replace("\n", "\r\n").encode())
    assert list(load(path, {}).providers) == ["zai"]


def test_a_client_whose_secret_cannot_be_had_is_an_error(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text("clients:\n  me: {file: gone}\n")
    with pytest.raises(
        RulesError, match=r"rules.yaml:2: key file .*gone cannot be read.*\(at \$.clients.me\)"
    ) as caught:
        load(path, {})
    assert tmp_path / "gone" in caught.value.reads


REFERENCES = [
    "$KEY_OF_MINE", "%KEY_OF_MINE%", "env:KEY_OF_MINE", "$env:KEY_OF_MINE", "$Env:KEY_OF_MINE",
    "${KEY_OF_MINE", "$(KEY_OF_MINE)", "{env:KEY_OF_MINE}", "{{ KEY_OF_MINE }}", "os.environ/KEY_OF_MINE",
]  # fmt: skip


@pytest.mark.parametrize("written", REFERENCES)
@pytest.mark.parametrize(
    "key",
    [
        "key: '{}'",
        "keys: [fake, '{}']",
        "headers: {{Authorization: 'Bearer {}'}}",
        "quota: {{probe_key: '{}'}}",
    ],
)
def test_a_variable_named_as_elsewhere_is_an_error_that_says_how_it_is_written(written, key):
    (error,) = errors_of(
        "providers:\n  a:\n    url: https://h\n    " + key.format(written), KEY_OF_MINE="key-for-tests"
    )
    assert error.startswith("rules.yaml:4: ")
    assert "${KEY_OF_MINE}" in error or "${NAME}" in error
    assert "key-for-tests" not in error


def test_a_clients_secret_is_looked_at_in_the_same_way():
    assert errors_of("clients:\n  me: $SECRET") == (
        "rules.yaml:2: a variable is written ${SECRET} here (at $.clients.me)",
    )


@pytest.mark.parametrize("key", ["fake$KEY", "fake-%20-%", "env:1x", "$", "a:b", "fake{{x}}", "$$x"])
def test_other_keys_with_such_characters_are_keys(key):
    rules = parse(f"providers: {{a: {{url: https://h, key: '{key}'}}}}", file=FILE, environ={})
    assert rules.providers["a"].key == key


def test_a_variable_whose_value_names_another_makes_the_provider_unavailable(tmp_path):
    (tmp_path / ".env").write_text("A=$OTHER\n")
    (tmp_path / "rules.yaml").write_text("providers: {a: {url: https://h, key: '${A}'}}\n")
    rules = load(tmp_path / "rules.yaml", {})
    assert rules.providers["a"].unavailable == "the key is the name of a variable instead of its value"
