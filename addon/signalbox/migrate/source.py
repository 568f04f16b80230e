"""Reads the configuration of another router, and recognises by its content whose it is."""

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from signalbox.config import document, files
from signalbox.migrate import (
    cc_switch,
    chat_proxy,
    claude_code_router,
    failover_proxy,
    litellm,
    quota_router,
    tier_proxy,
    zai_proxy,
)
from signalbox.migrate.environment import Environment
from signalbox.migrate.form import Migration, SourceError

ENVIRONMENTS = (quota_router, tier_proxy, chat_proxy, failover_proxy, zai_proxy)
"""Those with the more particular names first: other routers have some names too."""
TREES = (claude_code_router, cc_switch, litellm)
IN_FOLDERS = ("config.sqlite", "cc-switch.db", "config.json", "config.yaml", "config.yml", ".env")
"""Which file is read where a folder is given."""
_SQLITE = b"SQLite format 3\x00"
_COMMENT = re.compile(r'("(?:[^"\\\n]|\\.)*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_COMMA = re.compile(r'("(?:[^"\\\n]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)
_SETTING = re.compile(r"^\s*(export\s+)?[A-Za-z_][A-Za-z0-9_]*\s*=", re.MULTILINE)


def migrate(path: Path) -> Migration:
    """The migration of the file, or of the one in the folder. Raises SourceError, whose text names the file
    and the place."""
    if path.is_dir():
        found = [path / name for name in IN_FOLDERS if (path / name).is_file()]
        if not found:
            raise SourceError(f"{path}: there is none of {', '.join(IN_FOLDERS)} in it")
        path = found[0]
    try:
        return _migrated(path)
    except SourceError as fault:
        where = "" if fault.place is None else f":{fault.place}" if isinstance(fault.place, int) else ""
        at = f" (at {fault.place})" if isinstance(fault.place, str) else ""
        raise SourceError(f"{path}{where}: {fault}{at}") from None


def _migrated(path: Path) -> Migration:
    try:
        data = files.read_file(path)
        if data.startswith(_SQLITE):
            return _from_database(path)
        text = document.decode_utf8(data)
    except OSError as fault:
        raise SourceError(f"it cannot be read: {fault.strerror}") from None
    except document.DocumentError as broken:
        raise SourceError(broken.finding.message, broken.finding.line) from None
    if not text.strip():
        raise SourceError("it is empty", 1)
    if text.startswith("-- CC Switch"):
        raise SourceError("this is an export of cc-switch: give its database, ~/.cc-switch/cc-switch.db", 1)
    if text.lstrip()[0] in "{[" or path.suffix == ".json":
        return of_tree(read_json(text))
    if path.suffix in (".yaml", ".yml") or not _SETTING.search(text):
        return of_tree(_read_yaml(text))
    return of_environment(Environment(text))


def of_environment(env: Environment) -> Migration:
    """Raises SourceError."""
    for family in ENVIRONMENTS:
        if family.recognises(env):
            found: Migration = family.migrate(env)
            return found
    raise SourceError("no router is known whose .env has these settings (docs/migrating.md lists them)", 1)


def of_tree(tree: Any) -> Migration:
    """Of JSON or YAML. Raises SourceError."""
    if isinstance(tree, dict):
        if failover_proxy.recognises_tree(tree):
            return failover_proxy.migrate_tree(tree)
        for family in TREES:
            if family.recognises(tree):
                migration: Migration = family.migrate(tree)
                return migration
        if "providers" in tree and "rules" in tree:
            raise SourceError("this is a rules.yaml already", 1)
    raise SourceError(
        "no router is known whose configuration looks like this (docs/migrating.md lists them)", 1
    )


def _from_database(path: Path) -> Migration:
    readers: tuple[tuple[str, Callable[[sqlite3.Connection], Migration]], ...] = (
        ("app_config", claude_code_router.migrate_database),
        ("providers", cc_switch.migrate_database),
    )
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as database:
            tables = {
                name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
            for table, reader in readers:
                if table in tables:
                    return reader(database)
    except sqlite3.Error as fault:
        raise SourceError(f"this database cannot be read: {fault}") from None
    raise SourceError("no router is known whose database has these tables (docs/migrating.md lists them)")


def read_json(text: str) -> Any:
    """JSON, also with comments and commas too many. Raises SourceError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass

    def blank(found: re.Match[str]) -> str:  # of the same length, so that places stay
        return found[1] or re.sub(r"[^\n]", " ", found[0])

    try:
        return json.loads(_COMMA.sub(blank, _COMMENT.sub(blank, text)))
    except json.JSONDecodeError as fault:
        raise SourceError(f"this is not JSON: {fault.msg}", fault.lineno) from None
    except RecursionError:
        raise SourceError("this is not JSON: nested too deep", 1) from None


def _read_yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as fault:
        line = fault.problem_mark.line + 1 if fault.problem_mark else 1
        raise SourceError(f"this is not YAML: {fault.problem or 'broken'}", line) from None
    except (yaml.YAMLError, ValueError, RecursionError) as fault:
        raise SourceError(f"this is not YAML: {type(fault).__name__}", 1) from None
