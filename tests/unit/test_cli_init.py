"""`signalbox init`: what it writes and where, and what it refuses."""

import os
import stat
import sys

import pytest
from click.testing import CliRunner

from signalbox.cli.check import check
from signalbox.cli.init import init_command, presets
from signalbox.config.secrets import from_dotenv


def init(*arguments: object):
    return CliRunner().invoke(init_command, [str(argument) for argument in arguments])


def test_without_a_terminal_it_asks_nothing_and_writes_the_rules_that_come_with_the_package(tmp_path):
    told = init("--out", tmp_path / "deep" / "folder")
    assert told.exit_code == 0
    assert "Set in" in told.stdout
    assert (tmp_path / "deep/folder/.env").read_text().splitlines()[-1] == "ZAI_API_KEY="
    errors, warnings = check(tmp_path / "deep/folder/rules.yaml", {"ZAI_API_KEY": "key-for-tests"})
    assert (errors, warnings) == ([], [])


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_rules_without_errors(name, tmp_path):
    assert init("--preset", name, "--out", tmp_path).exit_code == 0
    assert check(tmp_path / "rules.yaml", {})[0] == []


def test_preset_without_a_name_lists_them_with_what_they_are_for(tmp_path):
    told = init("--preset", "--out", tmp_path)
    assert told.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in told.stdout.splitlines())
    assert lines.keys() == presets().keys()
    assert lines["team"] == "One router for a team"
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_preset_is_wrong_usage(tmp_path):
    told = init("--preset", "teem", "--out", tmp_path)
    assert told.exit_code == 2
    assert "--preset without a name lists them" in told.stderr


def test_a_preset_and_another_routers_configuration_exclude_each_other(tmp_path):
    assert init("--preset", "team", "--from", tmp_path, "--out", tmp_path).exit_code == 2


@pytest.mark.parametrize("name", ["rules.yaml", ".env"])
def test_existing_files_stay_as_they_are_and_nothing_is_written(name, tmp_path):
    (tmp_path / name).write_text("mine\n")
    told = init("--preset", "tiers", "--out", tmp_path)
    assert told.exit_code == 1
    assert f"{tmp_path / name} is there: nothing was written" in told.stderr
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine\n"}


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights there")
def test_a_link_to_nowhere_is_not_written_through(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.env").symlink_to(tmp_path / "elsewhere")
    assert init("--out", tmp_path / "out").exit_code == 1
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
def test_only_the_owner_may_read_the_env(tmp_path):
    before = os.umask(0)
    try:
        init("--out", tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    told = init("--out", tmp_path / "new")
    assert told.exit_code == 1
    assert "nothing was written" in told.stderr


def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    told = init("--out", tmp_path / "file" / "new")
    assert told.exit_code == 1
    assert told.stderr.count("\n") == 1


def test_the_secrets_of_clients_are_made_up(tmp_path):
    for folder in ("a", "b"):
        init("--preset", "team", "--out", tmp_path / folder)
    secrets = [from_dotenv((tmp_path / folder / ".env").read_text()).values for folder in ("a", "b")]
    assert all(secrets[0].keys() == {"CLIENT_LAPTOP", "CLIENT_BUILD_SERVER"} for _ in secrets)
    assert not set(secrets[0].values()) & set(secrets[1].values())


def test_editors_find_the_schema_from_the_new_file(tmp_path):
    init("--out", tmp_path)
    first = (tmp_path / "rules.yaml").read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=file:///")
    assert first.endswith("/rules.schema.json")


def test_faults_of_the_rules_that_it_makes_are_reported_and_exit_with_1(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"Providers": [{"name": "a", "api_base_url": "http://h", "extraHeaders": {"Host ": "x"}}]}'
    )
    told = init("--from", tmp_path / "config.json", "--out", tmp_path / "new")
    assert told.exit_code == 1
    assert "rules.yaml:" in told.stderr
    assert (tmp_path / "new/rules.yaml").exists()


def test_what_the_environment_has_need_not_be_set(tmp_path, monkeypatch):
    monkeypatch.setenv("ZAI_API_KEY", "key-for-tests")
    assert "Set in" not in init("--out", tmp_path).stdout
