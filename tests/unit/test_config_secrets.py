"""Values from outside the rules file: variables, .env, key files, key commands."""

import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from signalbox.config.fields import Command, Secret
from signalbox.config.schema import SecretSource
from signalbox.config.secrets import UnsetError, Vault, expanded, from_dotenv, in_force, origins, run

VARIABLES = {"HOST": "example.com", "DOLLAR": "${HOST}"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://${HOST}/x", "https://example.com/x"),
        ("${HOST}${HOST}", "example.comexample.com"),
        ("${PORT:-8082}", "8082"),
        ("${HOST:-other}", "example.com"),
        ("${PORT:-}", ""),
        ("$${HOST}", "${HOST}"),
        ("${DOLLAR}", "${HOST}"),
        ("$HOST {x} }", "$HOST {x} }"),
    ],
)
def test_names_are_replaced_once(text, expected):
    assert expanded(text, VARIABLES) == expected


def test_a_name_without_value_and_default_is_unset():
    with pytest.raises(UnsetError, match=r"^PORT is not set$"):
        expanded("${HOST}:${PORT}", VARIABLES)


@pytest.mark.parametrize("text", ["${", "${}", "${a b}", "${HOST", "${A:-${HOST}}", "${1}", "${HOST-x}"])
def test_malformed_variable_reference_is_refused(text):
    with pytest.raises(ValueError, match=r"\$\$\{"):
        expanded(text, VARIABLES)


@given(st.text())
def test_text_without_a_dollar_stays(text):
    assert expanded(text.replace("$", ""), {}) == text.replace("$", "")


def test_dotenv_is_taken_as_it_stands():
    text = "A=1\nexport B='two words'\n# C=3\nD=\nE\nF=${A}\n"
    found = from_dotenv(text)
    assert found.values == {"A": "1", "B": "two words", "F": "${A}"}
    assert (found.lines["A"], found.lines["F"], found.ignored) == (1, 6, ())


def test_lines_of_dotenv_that_set_nothing_are_listed_by_number():
    found = from_dotenv("A=1\n\n\nthis is no setting\nB=2\n'\n")
    assert (found.values, found.lines["B"], found.ignored) == ({"A": "1", "B": "2"}, 5, (4, 6))


def test_the_environment_wins_over_dotenv_unless_it_is_empty():
    file = from_dotenv("A=file\nB=file")
    assert in_force({"A": "env", "B": ""}, file) == {"A": "env", "B": "file"}
    assert origins({"A": "env", "B": ""}, file) == {"B": ".env:2"}


def test_the_first_file_wins_over_the_second_unless_it_is_empty_there():
    first, second = from_dotenv("A=1\nB=\n", "first"), from_dotenv("A=2\nB=2\nC=2", "second")
    assert in_force({}, first, second) == {"A": "1", "B": "2", "C": "2"}
    assert origins({}, first, second) == {"A": "first:1", "B": "second:2", "C": "second:3"}


@pytest.fixture
def vault(tmp_path):
    return Vault(tmp_path, {**os.environ, "FROM_DOTENV": "variable-for-tests"})


def command(script: str) -> SecretSource:
    return SecretSource(command=(sys.executable, "-c", script))


def fetched(vault: Vault, source: SecretSource) -> Secret:
    return vault.fetch([source])[source]


def program(folder: Path, script: str) -> Command:
    return Command((sys.executable, "-c", script), folder, os.environ)


def test_a_file_beside_the_rules_is_read_and_stripped(vault, tmp_path):
    (tmp_path / "key").write_text("\ufeff key-for-tests \n", encoding="utf-8")
    assert fetched(vault, SecretSource(file=Path("key"))) == Secret("key-for-tests", file=tmp_path / "key")


def test_an_account_is_named_by_where_its_secret_comes_from(tmp_path):
    """So that it stays the same when the secret is renewed."""
    sources = [SecretSource(file=Path("key")), SecretSource(command=("cat", str(tmp_path / "key")))]
    named = []
    for written in ("key-for-tests-1", "key-for-tests-2"):
        (tmp_path / "key").write_text(written)
        vault = Vault(tmp_path, dict(os.environ))
        named.append([secret.account for secret in vault.fetch(sources).values()])
    assert named[0] == named[1]
    assert len({*named[0], Secret("a").account, Secret("b").account}) == 4
    assert vault.reads == [tmp_path / "key"]


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty"), (b"a\nb", "header"), (b"\xff\xfe", "is not text")]
)
def test_a_file_without_a_key_gives_a_reason(vault, tmp_path, data, reason):
    (tmp_path / "key").write_bytes(data)
    secret = fetched(vault, SecretSource(file=tmp_path / "key"))
    assert secret.value is None
    assert reason in secret.reason


def test_a_missing_file_gives_a_reason_and_is_watched(vault, tmp_path):
    secret = fetched(vault, SecretSource(file=tmp_path / "gone"))
    assert "gone cannot be read: No such file" in secret.reason
    assert vault.reads == [tmp_path / "gone"]


def test_a_command_prints_the_key_and_knows_the_variables(vault):
    found = fetched(vault, command("import os; print(os.environ['FROM_DOTENV'])"))
    assert found.value == "variable-for-tests"


def test_a_command_runs_once_a_load(vault, tmp_path):
    source = command("open('ran', 'a').write('x'); print('key')")
    found = vault.fetch([source, source, replace(source, every=60.0)])
    assert [secret.value for secret in found.values()] == ["key", "key"]
    assert (tmp_path / "ran").read_text() == "x"


def test_commands_run_side_by_side(vault):
    """Each ends only once the other runs."""
    script = (
        "import pathlib, time; pathlib.Path('{0}').touch(); ends = time.monotonic() + 5\n"
        "while not pathlib.Path('{1}').exists() and time.monotonic() < ends: time.sleep(0.01)\n"
        "print(pathlib.Path('{1}').exists())"
    )
    found = vault.fetch([command(script.format("a", "b")), command(script.format("b", "a"))])
    assert [secret.value for secret in found.values()] == ["True", "True"]


def test_a_command_that_has_printed_before_is_not_run_again(tmp_path):
    source = command("print('now')")
    before = program(tmp_path, "print('now')")
    vault = Vault(tmp_path, os.environ, ((before, Secret("before", command=before)),))
    assert fetched(vault, source).value == "before"
    assert fetched(vault, replace(source, every=60.0)).value == "now"
    assert fetched(vault, command("print('other')")).value == "other"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("print('fake-secret'); raise SystemExit(3)", "failed with exit code 3"),
        ("print('')", "the key is empty"),
        ("print('fake-secret'); print('more')", "a header cannot carry"),
    ],
)
def test_a_failed_command_gives_a_reason_without_its_output(vault, script, reason):
    secret = fetched(vault, command(script))
    assert secret.value is None
    assert reason in secret.reason
    assert "fake-secret" not in secret.reason


def test_a_command_that_does_not_exist_gives_a_reason(vault):
    assert "cannot be run: No such file" in fetched(vault, SecretSource(command=("/no/such/program",))).reason


def test_a_command_that_takes_too_long_is_ended(tmp_path):
    secret = run(program(tmp_path, "import time; time.sleep(60)"), limit=0.05)
    assert "took longer than 0.05 s" in secret.reason


def test_a_command_that_prints_without_end_is_ended(vault):
    began = time.monotonic()
    secret = fetched(vault, command("while True: print('x' * 1000000)"))
    assert secret.value is None
    assert "printed more than 65536 bytes" in secret.reason
    assert time.monotonic() - began < 5


@pytest.mark.slow
def test_child_that_holds_the_output_open_does_not_block(tmp_path):
    script = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(5)'])"
    assert "took longer than 0.5 s" in run(program(tmp_path, script), limit=0.5).reason


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
def test_a_pipe_or_an_endless_file_in_the_place_of_a_key_gives_a_reason(vault, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert (
        "pipe cannot be read: it is not a regular file"
        in fetched(vault, SecretSource(file=Path("pipe"))).reason
    )
    (tmp_path / "large").write_bytes(b"x" * 100_000)
    assert "it is larger than 65536 bytes" in fetched(vault, SecretSource(file=Path("large"))).reason
