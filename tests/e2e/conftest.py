"""What the end-to-end tests share."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _own_home(home_folder: object) -> None:
    """Also where a test starts its router by itself."""
