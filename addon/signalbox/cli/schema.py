"""`signalbox schema`: the JSON Schema of rules.yaml, for editors."""

from pathlib import Path

import click

from signalbox.config import jsonschema


@click.command("schema")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
@click.option(
    "--check",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Only tell whether this file holds it; the exit code is 1 where it does not.",
)
def schema_command(out: Path | None, check: Path | None) -> None:
    """Print the JSON Schema of rules.yaml."""
    text = jsonschema.text()
    if check:
        if check.read_text(encoding="utf-8") != text:
            raise click.ClickException(f"{check} is stale; `just schema` renews it")
    elif out:
        out.write_text(text, encoding="utf-8", newline="\n")
    else:
        click.echo(text, nl=False)
