"""rules.yaml, `.env`, and the environment: the rules in force, or every fault with its line."""

from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from . import document, schema
from .build import Fetch, assemble
from .decode import Decoder
from .faults import Fault, MisfitError
from .rules import Rules, Secret
from .secrets import Vault
from .variables import from_dotenv, in_force
from .warn import warnings


class RulesError(Exception):
    """The file cannot be used. `errors` are lines for people, each `rules.yaml:LINE: MESSAGE (at $.path)`."""

    def __init__(self, errors: tuple[str, ...], reads: tuple[Path, ...] = ()) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors
        self.reads = reads
        """Files beside the rules in which the remedy may appear."""


def load(path: Path, environ: Mapping[str, str], *, may_be_empty: bool = True) -> Rules:
    """Reads the file at `path` and what it names, and runs its commands. Raises RulesError."""
    beside = path.parent / ".env"
    reads: tuple[Path, ...] = (beside,)
    try:
        dotenv = from_dotenv(_text_beside(beside))
        vault = Vault(path.parent, in_force(environ, dotenv))
        text = _text(path)
        if not may_be_empty and not document.read(text)[0].items:
            raise document.BrokenError(Fault(1, "the file is empty: the rules in force stay"))
        try:
            found = parse(text, file=path, environ=environ, dotenv=dotenv, fetch=vault.fetch)
        finally:
            reads += tuple(vault.reads)
    except document.BrokenError as broken:
        raise RulesError((broken.fault.within(path.name),), reads) from None
    except RulesError as error:
        error.reads = reads
        raise
    return replace(found, reads=reads)


def parse(
    text: str,
    *,
    file: Path,
    environ: Mapping[str, str],
    dotenv: Mapping[str, str] | None = None,
    fetch: Fetch | None = None,
) -> Rules:
    """The rules that `text` holds. Reads no file: `fetch` gets secrets kept elsewhere. Raises RulesError."""
    try:
        root, faults = document.read(text)
    except document.BrokenError as broken:
        raise RulesError((broken.fault.within(file.name),)) from None
    variables = in_force(environ, dotenv or {})
    decoder = Decoder(root, variables)
    written = decoder.decode(schema.RulesFile, root)
    faults += decoder.faults
    if faults:
        raise _error(faults, file)
    try:
        found = assemble(written, root, file=file, variables=variables, fetch=fetch or _unfetched)
    except MisfitError as misfit:
        decoder.blame(misfit, root)
        raise _error(decoder.faults, file) from None
    return replace(found, warnings=warnings(found, root, variables))


def _error(faults: list[Fault], file: Path) -> RulesError:
    return RulesError(tuple(fault.within(file.name) for fault in sorted(set(faults))))


def _text(path: Path) -> str:
    try:
        return document.decoded(path.read_bytes())
    except FileNotFoundError:
        remedy = "create it (an empty one forwards everything), or name another with --set router_rules=PATH"
        raise document.BrokenError(Fault(1, f"{path} does not exist: {remedy}")) from None
    except OSError as error:
        raise document.BrokenError(Fault(1, f"{path} cannot be read: {error.strerror}")) from None


def _text_beside(path: Path) -> str:
    """What `.env` holds; nothing where there is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise document.BrokenError(Fault(1, f"{path} cannot be read: {error.strerror}")) from None
    except UnicodeDecodeError:
        raise document.BrokenError(Fault(1, f"{path} is not UTF-8 text: save it as UTF-8")) from None


def _unfetched(_source: schema.SecretSource) -> Secret:
    return Secret(None, "secrets kept elsewhere were not fetched")
