"""`python -m signalbox.cli` is `signalbox`."""

from signalbox.cli import main

main()
