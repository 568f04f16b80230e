"""Providers of a played router, by the names that most of its rules give them."""

import pytest

from tests.support.playbook import PlayedRouter, Provider


@pytest.fixture
def home(played_router: PlayedRouter) -> Provider:
    """Anthropic, where it matters."""
    return played_router.provider("home")


@pytest.fixture
def up(played_router: PlayedRouter) -> Provider:
    return played_router.provider("up")


@pytest.fixture
def zai(played_router: PlayedRouter) -> Provider:
    return played_router.provider("zai")
