"""Loads rules.yaml, `.env` and the environment into the rules in force. Raises all errors at once, with
lines."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from signalbox.places import HOME

from . import document, files, schema
from .decode import Decoder
from .document import ConflictError, DocumentError, Finding
from .fields import Listen, ListenAddress, NewName, Secret
from .lint import warnings
from .rules import Rules
from .schema import Fetch
from .secrets import Dotenv, Printed, Vault, from_dotenv, in_force, origins

WITHOUT_FILE = "`signalbox init` writes one, or name another with --rules"
"""What to do where the rules file is not there."""


class RulesError(Exception):
    """The file cannot be used. `errors` are lines for people, each `rules.yaml:LINE: MESSAGE (at $.path)`."""

    def __init__(self, errors: tuple[str, ...], reads: tuple[Path, ...] = ()) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors
        self.reads = reads
        """Other files whose change may remove the errors."""


def dotenv_files(rules: Path, project: Path = HOME) -> tuple[Path, ...]:
    """The `.env` files: beside the rules, and in the folder of the default rules. The first one wins."""
    beside, second = rules.parent / ".env", project / ".env"
    return (beside,) if beside.resolve() == second.resolve() else (beside, second)


def read_text(path: Path, remedy: str = WITHOUT_FILE) -> str:
    """The text of the rules file at `path`. Raises RulesError, with this remedy where it is not there."""
    try:
        return document.decode_utf8(files.read_file(path))
    except FileNotFoundError:
        why = Finding(1, f"{path} does not exist: {remedy}")
    except OSError as error:
        why = Finding(1, f"{path} cannot be read: {error.strerror}")
    except DocumentError as broken:
        why = broken.finding
    raise RulesError((why.within(path.name),), dotenv_files(path))


def load(
    path: Path,
    environ: Mapping[str, str],
    *,
    text: str | None = None,
    may_be_empty: bool = True,
    project: Path = HOME,
    printed: Printed = (),
    fetch: Fetch | None = None,
) -> Rules:
    """Reads the file at `path` and the files that it names, and runs its commands. Raises RulesError.

    `text` takes the place of what the file at `path` holds, `printed` that of running these commands,
    `fetch` that of reading files with secrets and running commands.
    """
    reads = dotenv_files(path, project)
    try:
        dotenvs = [_dotenv(file) for file in reads]
        vault = Vault(path.parent, in_force(environ, *dotenvs), printed)
        if text is None:
            text = read_text(path)
        if not may_be_empty and not document.read_yaml(text)[0].items:
            raise DocumentError(Finding(1, "the file is empty: the rules in force stay"))
        try:
            found = parse(text, file=path, environ=environ, dotenvs=dotenvs, fetch=fetch or vault.fetch)
        finally:
            reads += tuple(vault.reads)
    except DotenvError as error:
        raise RulesError((str(error),), reads) from None
    except DocumentError as broken:
        raise RulesError((broken.finding.within(path.name),), reads) from None
    except RulesError as error:
        error.reads = reads
        raise
    return replace(found, reads=reads)


def parse(
    text: str,
    *,
    file: Path,
    environ: Mapping[str, str],
    dotenvs: Sequence[Dotenv] = (),
    fetch: Fetch | None = None,
) -> Rules:
    """The rules in `text`. Reads no file itself: `fetch` gets all secrets stored elsewhere. Raises
    RulesError."""
    try:
        root, findings = document.read_yaml(text)
    except DocumentError as broken:
        raise RulesError((broken.finding.within(file.name),)) from None
    variables, places = in_force(environ, *dotenvs), origins(environ, *dotenvs)
    decoder = Decoder(root, variables, places)
    written: schema.RulesFile = decoder.decode(schema.RulesFile, root)
    findings += decoder.findings
    if findings:
        raise _error(findings, file)
    try:
        secrets = (fetch or _unfetched)(written.secret_sources())
        found = written.in_force(root, file=file, variables=variables, secrets=secrets)
    except ConflictError as conflict:
        decoder.blame(conflict, root)
        raise _error(decoder.findings, file) from None
    odd = [
        f"{one.file}:{line}: this line is ignored: expected NAME=VALUE"
        for one in dotenvs
        for line in one.ignored
    ]
    return replace(found, warnings=(*warnings(found, root, variables, places), *odd))


def listeners(text: str, file: Path, environ: Mapping[str, str]) -> Mapping[str, Listen]:
    """What `listen` says in the text of the rules at `file`, whatever faults they have elsewhere. Reads no
    file but `.env`. Raises RulesError where that cannot be said."""
    try:
        root, _ = document.read_yaml(text)
        dotenvs = [_dotenv(one) for one in dotenv_files(file)]
    except DocumentError as broken:
        raise RulesError((broken.finding.within(file.name),)) from None
    except DotenvError as error:
        raise RulesError((str(error),)) from None
    decoder = Decoder(root, in_force(environ, *dotenvs), origins(environ, *dotenvs))
    node = root.get("listen")
    found = decoder.decode(dict[NewName, ListenAddress], node, "$.listen") if node is not None else {}
    if decoder.findings:
        raise _error(decoder.findings, file)
    return found


def _error(findings: list[Finding], file: Path) -> RulesError:
    return RulesError(tuple(finding.within(file.name) for finding in sorted(set(findings))))


class DotenvError(Exception):
    """An `.env` file cannot be used; the text is a line for people that begins with the file."""


def _dotenv(path: Path) -> Dotenv:
    """The settings of an `.env` file; empty if there is no file. Raises DotenvError."""
    try:
        return from_dotenv(document.decode_utf8(files.read_file(path)), str(path))
    except (FileNotFoundError, NotADirectoryError):
        return Dotenv(str(path))
    except OSError as error:
        why = Finding(1, f"this file cannot be read: {error.strerror}")
    except DocumentError as broken:
        why = broken.finding
    raise DotenvError(why.within(str(path)))


def _unfetched(sources: Iterable[schema.SecretSource]) -> Mapping[schema.SecretSource, Secret]:
    return dict.fromkeys(sources, Secret(None, "secrets kept elsewhere were not fetched"))
