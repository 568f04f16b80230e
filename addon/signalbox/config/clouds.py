"""Clouds that serve Claude at endpoints of their own, and GitHub Copilot, known by the URL's host.

What each of them refuses is in `anthropic.platforms`.
"""

import re
from typing import Literal

from .fields import Url

type CloudName = Literal["vertex", "google", "bedrock", "aws", "foundry", "copilot"]
"""Google's Vertex AI and its Claude Platform, Amazon's Bedrock and its Claude Platform, Microsoft Foundry,
GitHub Copilot."""

VERTEX = re.compile(
    r"(?:[a-z0-9-]+-)?aiplatform\.googleapis\.com|aiplatform\.[a-z0-9-]+\.rep\.googleapis\.com"
)
"""Hosts of Vertex AI, which also serves models that do not speak the Messages API."""

_MESSAGES: tuple[tuple[CloudName, re.Pattern[str]], ...] = (
    ("google", re.compile(r"claude\.googleapis\.com")),
    ("bedrock", re.compile(r"bedrock-mantle\.[a-z0-9-]+\.api\.aws")),
    ("aws", re.compile(r"aws-external-anthropic\.[a-z0-9-]+\.api\.aws")),
    ("foundry", re.compile(r"[a-z0-9-]+\.services\.ai\.azure\.com")),
)
"""Hosts that speak the Messages API."""

COPILOT = re.compile(r"api(?:\.[a-z0-9-]+)?\.githubcopilot\.com")
"""Hosts of GitHub Copilot."""

_AMAZON = (".api.aws", ".amazonaws.com")


def cloud_of(url: Url) -> CloudName | None:
    """The cloud whose Messages endpoint has this URL."""
    return next((name for name, host in _MESSAGES if host.fullmatch(url.host.lower())), None)


def is_amazon(url: Url) -> bool:
    """Whether requests to this URL need a signature (SigV4) or an API key of Amazon's."""
    return url.host.lower().endswith(_AMAZON)
