"""`signalbox addon-path`: where mitmproxy finds the add-on."""

from pathlib import Path

import click

import signalbox


def router_path() -> Path:
    """Beside the package, as it lies in the repository."""
    return Path(signalbox.__file__).resolve().parent.parent / "router.py"


@click.command("addon-path")
def addon_path_command() -> None:
    """Print the path of router.py, for `mitmdump -s "$(signalbox addon-path)"`."""
    path = router_path()
    if not path.is_file():
        raise click.ClickException(f"{path} is not there: signalbox was not installed from its repository")
    click.echo(path)
