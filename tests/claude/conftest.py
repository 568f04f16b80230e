"""The real Claude Code, alone on this machine; `just test-claude` sees to that."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import claude_code, loopback_only
from tests.support.claude_code import Claude
from tests.support.fake_provider import Upstream


@pytest.fixture(scope="session")
def claude_code_program() -> Path:
    if why := loopback_only.why_not():
        pytest.skip(f"Claude Code is run only where it can reach nobody: {why}")
    try:
        return claude_code.program()
    except claude_code.UnavailableError as error:
        pytest.skip(f"no Claude Code: {error}")


@pytest.fixture
def anthropic(claude_code_program: Path, tmp_path: Path) -> Iterator[Upstream]:
    """Anthropic itself, scripted."""
    with claude_code.first_party(tmp_path) as (upstream, _):
        yield upstream


@pytest.fixture
def claude(anthropic: Upstream, tmp_path: Path) -> Claude:
    """Claude Code with an empty home, which trusts the certificate of `anthropic`."""
    return Claude(tmp_path, trusted=tmp_path / "first-party.pem")
