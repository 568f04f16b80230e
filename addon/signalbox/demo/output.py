"""Output of the demo: colours on a terminal, plain text elsewhere, an SVG picture on request."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

PICTURE_WIDTH = 92


class Output:
    def __init__(self, picture: Path | None = None) -> None:
        """`picture` is the file to which the output is written as SVG at the end."""
        self._picture = picture
        self._console = (
            Console(record=True, width=PICTURE_WIDTH, force_terminal=True, highlight=False)
            if picture
            else Console(highlight=False)
        )
        self._tick = "✓" if self._console.encoding.startswith("utf") else "ok"

    def heading(self, text: str) -> None:
        self._console.print()
        self._console.print(Text(text, style="bold cyan"), soft_wrap=True)

    def say(self, text: str, style: str = "") -> None:
        self._console.print(Text(f"  {text}", style=style), soft_wrap=True)

    def logged(self, line: str) -> None:
        """A line of the router's own log, with `?` for what this terminal cannot show."""
        encoding = self._console.encoding
        self.say(line.encode(encoding, "replace").decode(encoding), "yellow")

    def rules(self, yaml: str) -> None:
        text = Syntax("", "yaml", theme="ansi_dark").highlight(yaml.rstrip())
        self._console.print(text, soft_wrap=True)

    def word(self, text: str) -> None:
        """Prints the next piece of a stream at once."""
        self._console.print(Text(text, style="green"), end="", soft_wrap=True)

    def done(self, text: str) -> None:
        """Prints that a step succeeded."""
        self._console.print(Text.assemble("  ", (self._tick, "bold green"), f" {text}"), soft_wrap=True)

    def table(
        self, headings: Iterable[str], rows: Iterable[Iterable[str]], align: Literal["left", "right"]
    ) -> None:
        """`align` is for all columns but the first."""
        first, *rest = headings
        table = Table(box=None, padding=(0, 0, 0, 2), header_style="dim")
        table.add_column(first)
        for heading in rest:
            table.add_column(heading, justify=align)
        for row in rows:
            table.add_row(*map(Text, row))
        self._console.print(table)

    def end(self) -> None:
        self._console.print()
        if self._picture:
            svg = self._console.export_svg(title="just demo")
            # Viewers of the picture must not fetch fonts from another site.
            fontless = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
            self._picture.write_text(fontless, encoding="utf-8")
