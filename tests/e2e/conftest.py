"""What the end-to-end tests share."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def home_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Routers run in this process: none of them may find, or write to, the home of who runs the tests."""
    folder = str(tmp_path_factory.mktemp("home"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", folder)
        patch.setenv("USERPROFILE", folder)
        yield
