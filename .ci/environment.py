"""The virtual environment in .venv, by uv: made and filled where it is missing or no longer as asked.

`python3 .ci/environment.py` takes what requirements.lock pins, and the project itself, editable.
`python3 .ci/environment.py lock` renews requirements.lock and, with the same versions of what the router
itself needs, requirements-runtime.lock. `python3 .ci/environment.py build` makes the wheel in dist/.
`python3 .ci/environment.py system` installs the programs of Debian that the slow tests use, where it may.
Any Python 3 can run this file.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
RUNTIME_LOCK = ROOT / "requirements-runtime.lock"
STAMP = VENV / "installed"
"""Holds what .venv was filled from."""

# In this order: the Python that we develop with, any that will do, and only then one from the net.
PYTHONS = (
    ("--no-python-downloads", "--python", "3.13"),
    ("--no-python-downloads", "--python", ">=3.12"),
    ("--python", "3.13"),
)
# Names, versions and hashes alone: where they come from is the business of who installs.
LOCKING = ("--generate-hashes", "--universal", "--python-version", "3.12")
TERSE = ("--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links")

PROGRAMS = {"chromium": "chromium", "postgresql": "pg_ctl", "haproxy": "haproxy", "prometheus": "promtool"}
"""Packages of Debian and Ubuntu, and the program by which one sees that it is there."""
ELSEWHERE = (Path("/usr/sbin"), *Path("/usr/lib/postgresql").glob("*/bin"))
"""Folders, beside those of PATH, in which Debian puts programs."""
APT_LIMIT = 600
"""Seconds for the packages; what is missing then is skipped by the tests, with a reason."""


def uv_command() -> list[str]:
    """uv from .tools, from PATH, or as a module of this Python."""
    found = shutil.which("uv", path=str(ROOT / ".tools" / "bin")) or shutil.which("uv")
    if found or importlib.util.find_spec("uv"):
        return [found] if found else [sys.executable, "-m", "uv"]
    sys.exit("uv is missing; this gets it: python3 -m pip install --target .tools uv rust-just")


def uv(*arguments: str, quiet: bool = False) -> bool:
    """Run uv; True where it succeeds."""
    output = subprocess.DEVNULL if quiet else None
    # Trust whom the machine trusts, as pip does: a company's proxy may stand before the registry.
    environment = {"UV_SYSTEM_CERTS": "true", **os.environ, "VIRTUAL_ENV": str(VENV)}
    done = subprocess.run(  # noqa: S603  our own arguments, without a shell
        [*uv_command(), *arguments], cwd=ROOT, env=environment, stdout=output, stderr=output, check=False
    )
    return done.returncode == 0


def wanted() -> str:
    content = LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    return hashlib.sha256(content).hexdigest()


def make() -> bool:
    *tries, last = PYTHONS
    return any(uv("venv", "--clear", *python, str(VENV), quiet=True) for python in tries) or uv(
        "venv", "--clear", *last, str(VENV)
    )


def fill() -> bool:
    pinned = ("--require-hashes", "-r", str(LOCK))
    return uv("pip", "install", "--quiet", *pinned) and uv(
        "pip", "install", "--quiet", "--no-deps", "-e", "."
    )


def ensure() -> bool:
    asked = wanted()
    if STAMP.exists() and STAMP.read_text() == asked:
        return True
    _say("Preparing .venv ...")
    if not ((VENV / "pyvenv.cfg").exists() or make()) or not fill():
        return False
    STAMP.write_text(asked)
    return True


def lock() -> bool:
    pins = ("pip", "compile", "--quiet", "pyproject.toml", *LOCKING, *TERSE)
    return uv(*pins, "--group", "dev", "--upgrade", "-o", str(LOCK)) and uv(
        *pins, "--extra", "postgres", "--constraint", str(LOCK), "-o", str(RUNTIME_LOCK)
    )


def build() -> bool:
    return uv(
        "build", "--quiet", "--wheel", "--python", str(VENV), "--out-dir", str(ROOT / "dist"), str(ROOT)
    )


def has(program: str, elsewhere: tuple[Path, ...] = ELSEWHERE) -> bool:
    folders = os.pathsep.join([os.environ.get("PATH", ""), *map(str, elsewhere)])
    return shutil.which(program, path=folders) is not None


def system(programs: dict[str, str] = PROGRAMS, elsewhere: tuple[Path, ...] = ELSEWHERE) -> bool:
    """Install what is missing of `programs`, where we are root on Debian or Ubuntu. Never a failure: tests
    that need one of them say so and are skipped."""
    missing = [package for package, program in programs.items() if not has(program, elsewhere)]
    if not missing:
        return True
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if not is_root or not shutil.which("apt-get"):
        _say(f"Tests that need {', '.join(missing)} are skipped.")
        return True
    _say(f"Installing {', '.join(missing)} ...")
    # The tests start clusters of their own: the package is not to make and start one as a service.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    quietly = ("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120")
    install = (*quietly, "install", "-y", "--no-install-recommends", *missing)
    try:
        for command in ((*quietly, "update"), install):
            subprocess.run(  # noqa: S603  our own arguments, without a shell
                command, env=environment, stdout=subprocess.DEVNULL, check=True, timeout=APT_LIMIT
            )
    except (OSError, subprocess.SubprocessError) as error:
        _say(f"They cannot be installed, and tests that need them are skipped: {type(error).__name__}")
    return True


def _say(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201  a person waits


TASKS = {"": ensure, "lock": lock, "build": build, "system": system}

if __name__ == "__main__":
    sys.exit(0 if TASKS[" ".join(sys.argv[1:])]() else 1)
