"""ANTHROPIC_BASE_URL in Claude Code's settings.json: written, and taken out again to the byte."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.json_edit import BodyError
from signalbox.claude.base_url import (
    NOTE,
    SettingsError,
    set_base_url,
    unset_base_url,
    with_url,
    without_url,
)

URL = "http://127.0.0.1:8082"
PRETTY = """{
  "model": "opus",
  "env": {
    "FOO": "bar"
  },
  "hooks": {"Stop": []}
}
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (PRETTY, PRETTY.replace('"FOO"', f'"ANTHROPIC_BASE_URL": "{URL}",\n    "FOO"')),
        (
            '{\n\t"model": "opus"\n}',
            f'{{\n\t"env": {{\n\t\t"ANTHROPIC_BASE_URL": "{URL}"\n\t}},\n\t"model": "opus"\n}}',
        ),
        ('{"model":"opus"}', f'{{"env": {{"ANTHROPIC_BASE_URL": "{URL}"}},"model":"opus"}}'),
        ("{}", f'{{"env": {{"ANTHROPIC_BASE_URL": "{URL}"}}}}'),
        ('{ "env": { } }', f'{{ "env": {{"ANTHROPIC_BASE_URL": "{URL}" }} }}'),
        (
            '{"env": {"A": "1", "ANTHROPIC_BASE_URL" : "http://other" }}',
            f'{{"env": {{"A": "1", "ANTHROPIC_BASE_URL" : "{URL}" }}}}',
        ),
        ("\ufeff" + PRETTY, "\ufeff" + PRETTY.replace('"FOO"', f'"ANTHROPIC_BASE_URL": "{URL}",\n    "FOO"')),
        ("\ufeff{}", f'\ufeff{{"env": {{"ANTHROPIC_BASE_URL": "{URL}"}}}}'),
    ],
)
def test_it_is_spaced_like_what_is_there_and_taken_out_to_the_byte(before, after):
    changed, note = with_url(before.encode(), URL)
    assert changed.decode() == after
    assert without_url(changed, note).decode() == before


@pytest.mark.parametrize("raw", ["", "[]", "{,}", '{"env": 1}', '// {}\n{"a": 1}', '{"a": 1, "a": 2}'])
def test_what_is_no_settings_file_is_left_alone(raw):
    with pytest.raises(BodyError):
        with_url(raw.encode(), URL)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
environments = st.dictionaries(st.text(min_size=1) | st.just("ANTHROPIC_BASE_URL"), st.text(), max_size=3)


@given(
    st.dictionaries(st.text().filter("env".__ne__), values, max_size=4),
    st.none() | environments,
    st.sampled_from([None, 2, 4, "\t"]),
)
def test_any_settings_are_the_same_afterwards(settings, env, indent):
    if env is not None:
        settings = {**settings, "env": env}
    raw = json.dumps(settings, indent=indent).encode()
    changed, note = with_url(raw, URL)
    assert json.loads(changed) == {**settings, "env": {**(env or {}), "ANTHROPIC_BASE_URL": URL}}
    assert without_url(changed, note) == raw


def test_what_the_user_changed_meanwhile_stays():
    changed, note = with_url(PRETTY.replace('"env"', '"environment"').encode(), URL)
    edited = changed.replace(f'"{URL}"'.encode(), f'"{URL}", "NEW": "1"'.encode()).replace(b"opus", b"sonnet")
    assert json.loads(without_url(edited, note)) == {
        "env": {"NEW": "1"},
        "model": "sonnet",
        "environment": {"FOO": "bar"},
        "hooks": {"Stop": []},
    }


def test_a_base_url_that_the_user_set_meanwhile_stays():
    changed, note = with_url(PRETTY.encode(), URL)
    edited = changed.replace(URL.encode(), b"http://elsewhere")
    assert without_url(edited, note) is edited


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / ".claude" / "settings.json"
    path.parent.mkdir()
    path.write_text(PRETTY)
    return path


def test_the_file_is_as_before_and_nothing_is_left(settings, tmp_path):
    settings.chmod(0o640)
    set_base_url(settings, URL, tmp_path)
    assert json.loads(settings.read_text())["env"] == {"ANTHROPIC_BASE_URL": URL, "FOO": "bar"}
    assert settings.stat().st_mode & 0o777 == 0o640
    assert unset_base_url(tmp_path) == settings
    assert settings.read_text() == PRETTY
    assert [path.name for path in tmp_path.iterdir()] == [".claude"]
    assert unset_base_url(tmp_path) is None


def test_a_file_and_a_folder_that_were_not_there_are_gone_again(tmp_path):
    settings, state = tmp_path / "home" / ".claude" / "settings.json", tmp_path / "state"
    settings.parent.parent.mkdir()
    set_base_url(settings, URL, state)
    assert settings.read_text() == f'{{\n  "env": {{"ANTHROPIC_BASE_URL": "{URL}"}}\n}}\n'
    unset_base_url(state)
    assert list(settings.parent.parent.iterdir()) == []


def test_a_second_time_the_value_of_the_user_is_still_the_one_that_is_put_back(settings, tmp_path):
    own = PRETTY.replace('"FOO": "bar"', '"ANTHROPIC_BASE_URL": "https://gateway.example"')
    settings.write_text(own)
    set_base_url(settings, URL, tmp_path)
    set_base_url(settings, "http://127.0.0.1:8090", tmp_path)
    assert "8090" in settings.read_text()
    unset_base_url(tmp_path)
    assert settings.read_text() == own


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links take a right there")
def test_a_link_stays_one(settings, tmp_path):
    kept = tmp_path / "dotfiles.json"
    settings.rename(kept)
    settings.symlink_to(kept)
    set_base_url(settings, URL, tmp_path)
    assert settings.is_symlink()
    assert URL in kept.read_text()


def test_broken_settings_are_an_error_and_are_left_alone(settings, tmp_path):
    settings.write_text("{nonsense")
    with pytest.raises(SettingsError, match=r"settings.json is left as it is: not a JSON object"):
        set_base_url(settings, URL, tmp_path)
    assert settings.read_text() == "{nonsense"
    assert not (tmp_path / NOTE).exists()


def test_a_settings_file_that_is_gone_leaves_nothing_to_do(settings, tmp_path):
    set_base_url(settings, URL, tmp_path)
    settings.unlink()
    assert unset_base_url(tmp_path) is None
    assert not (tmp_path / NOTE).exists()
