"""`signalbox init`: rules.yaml and `.env` from a preset, or from the configuration of another router."""

import os
import re
import secrets
import sys
from contextlib import suppress
from pathlib import Path

import click
import msgspec
import yaml

from signalbox import places
from signalbox.config.load import RulesError, parse
from signalbox.migrate import source, writer
from signalbox.migrate.form import SourceError

DEFAULT = "default"
"""The preset with the rules that come with the package."""
RULES, DOTENV = "rules.yaml", ".env"
_EDITOR = "# yaml-language-server: $schema="
_NEEDED = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""A variable without a default."""


class Preset(msgspec.Struct, frozen=True):
    """Rules to begin with."""

    name: str
    text: str

    @property
    def summary(self) -> str:
        """The first sentence of the comment at its head."""
        lines = [
            line.removeprefix("#").strip() for line in self.text.splitlines() if not line.startswith(_EDITOR)
        ]
        head = " ".join(
            lines[: next((i for i, line in enumerate(lines) if i and not line), len(lines))]
        ).strip()
        plain = re.sub(r" *\([^)]*\)", "", head)
        return re.split(r"[.:;] |[.:]$", plain, maxsplit=1)[0]

    @property
    def clients(self) -> set[str]:
        """Variables with the secrets of clients, without which the rules do not load."""
        return set(_NEEDED.findall(str(yaml.safe_load(self.text).get("clients", ""))))

    @property
    def variables(self) -> list[str]:
        """All variables that it needs, in its order."""
        code = "\n".join(
            line.partition(" #")[0] for line in self.text.splitlines() if not line.startswith("#")
        )
        return list(dict.fromkeys(_NEEDED.findall(code)))


def presets() -> dict[str, Preset]:
    """The examples that are one file, and the rules that come with the package."""
    files = [places.FIRST_RULES, *sorted(places.EXAMPLES.glob("*.yaml"))]
    texts = {file: file.read_text(encoding="utf-8") for file in files if file.is_file()}
    found = [
        Preset(DEFAULT if file == places.FIRST_RULES else file.stem, text)
        for file, text in texts.items()
        if re.search("^rules:", text, re.MULTILINE)
    ]
    return {preset.name: preset for preset in found}


@click.command("init")
@click.option(
    "--preset",
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="Rules to begin with; without a name it lists them.",
)
@click.option(
    "--from",
    "origin",
    type=click.Path(exists=True, path_type=Path),
    help="The .env or configuration of another router, or its folder.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Folder of the new files; made if need be. Default: the current folder.",
)
def init_command(preset: str | None, origin: Path | None, out: Path) -> None:
    """Write rules.yaml and .env, from a preset or from another router's configuration.

    Existing files stay as they are: then nothing is written. Secrets stand in .env alone. What the other
    router has and this one has not is told here and at the head of rules.yaml.
    """
    if preset is not None and origin is not None:
        raise click.UsageError("Give --preset or --from, not both.")
    if preset == "":
        list_presets()
        return
    _refuse_existing(out)
    if origin is not None:
        rules, variables = _migrated(origin, out)
    else:
        rules, variables = _from_preset(_chosen(preset), out)
    faults = _faults(rules, variables) if origin is not None else ()
    _write(out, rules, writer.dotenv_text(variables))
    click.echo(f"Wrote {out / RULES} and {out / DOTENV}.")
    if unset := [name for name, value in variables.items() if not value and not os.environ.get(name)]:
        click.echo(f"Set in {out / DOTENV}: {', '.join(unset)}")
    for fault in faults:
        click.echo(fault, err=True)
    click.echo(f"Then: signalbox check {out / RULES}")
    click.echo(f"      signalbox claude --rules {out / RULES}")
    if faults:
        raise SystemExit(1)


def list_presets() -> None:
    """Prints each preset with what it is for."""
    known = presets()
    width = max(map(len, known))
    for name, one in known.items():
        click.echo(f"{name:{width}}  {one.summary}")


def _chosen(name: str | None) -> Preset:
    """The preset of this name. Without one it is asked for on a terminal; elsewhere it is the default."""
    known = presets()
    if name is None:
        if not _is_interactive():
            return known[DEFAULT]
        list_presets()
        name = click.prompt("Preset", default=DEFAULT, type=click.Choice(list(known)), show_choices=False)
    if name not in known:
        raise click.UsageError(f"There is no preset {name}: --preset without a name lists them.")
    return known[name]


def _from_preset(preset: Preset, out: Path) -> tuple[str, dict[str, str]]:
    first, _, rest = preset.text.partition("\n")
    rules = f"{_EDITOR}{_schema(out)}\n{rest}" if first.startswith(_EDITOR) else preset.text
    clients = preset.clients
    variables = {}
    for name in preset.variables:
        if name in clients:
            variables[name] = secrets.token_urlsafe(24)
        elif _is_interactive():
            variables[name] = click.prompt(
                f"{name} (Enter to leave it empty)", default="", hide_input=True, show_default=False
            )
        else:
            variables[name] = ""
    return rules, variables


def _migrated(origin: Path, out: Path) -> tuple[str, dict[str, str]]:
    try:
        migration = source.migrate(origin)
    except SourceError as fault:
        raise click.ClickException(writer.one_line(str(fault))) from None
    for note in migration.notes:
        click.echo(writer.one_line(note), err=True)
    return writer.rules_text(migration, _schema(out)), migration.variables


def _faults(rules: str, variables: dict[str, str]) -> tuple[str, ...]:
    """Errors in rules that were made of another configuration, with every variable set: what that
    configuration has and these rules do not take."""
    environ = {name: value or "unset" for name, value in variables.items()}
    try:
        parse(rules, file=Path(RULES), environ=environ)
    except RulesError as error:
        return error.errors
    return ()


def _schema(out: Path) -> str:
    """The address of the JSON Schema for editors: relative in the project, elsewhere a file URL."""
    folder = out.resolve()
    if places.IS_CHECKOUT and folder.is_relative_to(places.HOME):
        return Path(os.path.relpath(places.SCHEMA, folder)).as_posix()
    return places.SCHEMA.as_uri()


def _is_interactive() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _refuse_existing(out: Path) -> None:
    if there := [str(out / name) for name in (RULES, DOTENV) if os.path.lexists(out / name)]:
        raise click.ClickException(
            f"{' and '.join(there)} {'is' if len(there) == 1 else 'are'} there: nothing was written"
        )


def _write(out: Path, rules: str, dotenv: str) -> None:
    """Writes both files or neither."""
    written: list[Path] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text, mode in ((DOTENV, dotenv, 0o600), (RULES, rules, 0o666)):
            file = os.open(out / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            written.append(out / name)
            with os.fdopen(file, "w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
    except OSError as fault:
        for path in written:
            with suppress(OSError):
                path.unlink()
        raise click.ClickException(
            f"{fault.filename or out}: {fault.strerror}: nothing was written"
        ) from None
