"""Files of certificates: mitmproxy's own authority, and bundles of those whom a session trusts."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import certifi

from signalbox.state.atomic_file import replace

CA = "mitmproxy-ca-cert.pem"
"""In mitmproxy's folder: the certificate that it signs with."""
CA_KEY = "mitmproxy-ca.pem"


def authority_folder(home: Path, state: Path) -> Path:
    """Where mitmproxy has its authority: the user's folder if there is one, else one in the state folder,
    which mitmproxy fills at its start."""
    own = home / ".mitmproxy"
    return own if (own / CA).is_file() and (own / CA_KEY).is_file() else state / "mitmproxy"


def bundle(files: Iterable[Path], folder: Path) -> Path:
    """One file with the content of all of these, named after it. Raises OSError."""
    content = b"".join(file.read_bytes().rstrip() + b"\n" for file in files)
    path = folder / f"certificates-{hashlib.sha256(content).hexdigest()[:16]}.pem"
    if not path.exists():
        replace(path, content)
    return path


def readable(files: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Those that can be read, and for each other one a line that says why not."""
    found, faults = [], []
    for file in files:
        try:
            file.read_bytes()
            found.append(file)
        except OSError as error:
            faults.append(f"{file} is left out: {error.strerror or error}")
    return found, faults


def known_to_mitmproxy() -> Path:
    """The authorities that mitmproxy trusts by default."""
    return Path(certifi.where())
