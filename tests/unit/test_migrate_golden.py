"""Each configuration of another router in tests/golden/migrations becomes these rules and this `.env`.

The sections of a file are the input (`--- from NAME`, in SQL where that is a database), `--- rules.yaml`,
`--- .env`, and `--- explain`: what `signalbox explain` says of some models. REGENERATE=1 writes them anew.
"""

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from signalbox.cli.check import check
from signalbox.cli.explain import explain_command
from signalbox.cli.init import init_command
from tests.support.router_process import ROOT

CASES = {path.stem: path for path in sorted((ROOT / "tests/golden/migrations").glob("*.txt"))}
ENVIRONMENT = {
    name: f"{name.lower()}-for-tests"
    for name in (
        "ANTHROPIC_API_KEY",
        "GEMINI_API_KEY",
        "LITELLM_MASTER_KEY",
        "OPENAI_API_KEY",
        "OPENROUTER_API_KEY",
    )
}
"""Variables that inputs refer to without giving them a value."""


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^--- (.+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def case(request, tmp_path_factory):
    """(path of the case, its sections, what was made of it, what `init` told, where it wrote)"""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("migration")
        for name, value in {"HOME": str(folder), **ENVIRONMENT}.items():
            patch.setenv(name, value)
        yield made_of(request.param, folder)


def made_of(path: Path, tmp_path: Path):
    given = sections(path.read_text(encoding="utf-8"))
    section, text = next(iter(given.items()))
    name = section.removeprefix("from ")
    (tmp_path / "old").mkdir()
    if Path(name).suffix in (".db", ".sqlite"):
        with closing(sqlite3.connect(tmp_path / "old" / name)) as database, database:
            database.executescript(text)
    else:
        (tmp_path / "old" / name).write_text(text, encoding="utf-8")
    out = tmp_path / "new"
    told = CliRunner().invoke(init_command, ["--from", str(tmp_path / "old" / name), "--out", str(out)])
    assert told.exit_code == 0, told.output
    rules = re.sub(r"\A# yaml.*\n#\n", "", (out / "rules.yaml").read_text(encoding="utf-8"))
    made = {section: text, "rules.yaml": rules, ".env": (out / ".env").read_text(encoding="utf-8")}
    asked = [line.partition(":")[0] for line in given["explain"].splitlines()]
    explain = tmp_path / "rules.yaml"  # without the database, which is not there
    explain.write_text(re.sub("^ledger: .*", "", rules, flags=re.MULTILINE), encoding="utf-8")
    (tmp_path / ".env").write_text(made[".env"], encoding="utf-8")
    made["explain"] = "".join(f"{line}: {explained(explain, line)}\n" for line in asked)
    return path, given, made, told, out


def explained(rules: Path, line: str) -> str:
    model, *options = line.split()
    told = CliRunner().invoke(explain_command, [model, *options, "--rules", str(rules)])
    assert told.exit_code == 0, told.output
    text = told.stdout
    (rule,) = re.findall(r"^rules\.yaml:\d+ (\S+) matches", text, re.MULTILINE)
    places = re.findall(r"^\d\. \S+: POST (\S+)$", text, re.MULTILINE)
    models = re.findall(r"^   model: (\S+)$", text, re.MULTILINE)
    assert "skipped" not in text
    return f"{rule} " + ", ".join(f"{model} at {url}" for url, model in zip(places, models, strict=True))


def test_the_rules_the_env_and_what_explain_says_are_as_written(case):
    path, given, made, _, _ = case
    if os.environ.get("REGENERATE"):
        path.write_text("".join(f"--- {name}\n{text}" for name, text in made.items()), encoding="utf-8")
    else:
        assert made == given


def test_check_accepts_them(case):
    *_, out = case
    errors, _ = check(out / "rules.yaml", ENVIRONMENT)
    assert errors == []


def test_what_has_no_counterpart_is_reported_at_the_head_and_on_stderr(case):
    _, _, made, told, _ = case
    head = re.sub(r"\n#   ", " ", made["rules.yaml"])
    assert [line for line in told.stderr.splitlines() if f"\n# - {line}\n" not in head] == []
    assert head.count("\n# - ") == len(told.stderr.splitlines())


def test_secrets_stand_in_the_env_alone(case):
    """Every secret of the inputs holds `for-tests` or `sk-ant-fake`."""
    _, _, made, told, _ = case
    for text in (made["rules.yaml"], made["explain"], told.output):
        assert "for-tests" not in text
        assert "sk-ant-fake" not in text
