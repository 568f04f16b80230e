"""docs/commands.md, from the commands themselves.

`python .ci/commands.py` writes it; with `--check` it fails where the page is stale.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from signalbox.cli.group import signalbox_command

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
HEAD = """# Commands

What `signalbox COMMAND --help` says; `just docs` writes this page. Exit codes: 0 well, 1 something is wrong,
2 wrong usage. Commands take `rules.yaml` of the current folder, else the one beside `addon/`, or that
[in the configuration folder](installing.md).
"""


def page() -> str:
    context = click.Context(signalbox_command, info_name="signalbox")
    return "\n".join([HEAD, *described(signalbox_command, context)])


def described(group: click.Group, context: click.Context) -> Iterator[str]:
    """The lines about each command of a group, and about those of groups within it."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, context, info_name=name)
        usage = " ".join([inner.command_path, *command.collect_usage_pieces(inner)])
        yield f"## `{usage}`\n" if context.parent is None else f"### `{usage}`\n"
        yield from text(command)
        rows = list(options(command, inner))
        if rows:
            yield "\n".join(["| option | what it does |", "|---|---|", *rows, ""])
        if isinstance(command, click.Group):
            yield from described(command, inner)


def text(command: click.Command) -> Iterator[str]:
    for paragraph in (command.help or "").split("\n\n"):
        yield " ".join(paragraph.replace("\b", "").split()) + "\n"


def options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in parameter.opts:
            name, what = (part.replace("|", "\\|") for part in record)
            yield f"| `{name}` | {' '.join(what.split())} |"


def main() -> None:
    made = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(made, encoding="utf-8", newline="\n")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != made:
        sys.exit(f"{PAGE.name} is stale; `just docs` renews it")


if __name__ == "__main__":
    main()
