"""Carries encrypted reasoning in the signatures of thinking blocks (openai-responses.md, 2 and 3).

A provider gives its reasoning as a reasoning item with `encrypted_content`, which it takes back only for the
account and model that made it; it refuses that of others, or drops it silently. So the thinking block that a
client gets has the signature `signalbox.<provider>.responses-<owner>.<encrypted_content>`, in which `owner`
stands for account and model, also where the block has no text.
"""

from hashlib import blake2b

import msgspec

from signalbox.anthropic.issued import MADE_HERE

_MARK = "responses-"


class ReasoningOwner(msgspec.Struct, frozen=True):
    """Who made reasoning, and alone takes it back: one model of one account at one provider."""

    provider: str
    """Its name in the rules, without dots."""
    owner: str
    """A keyed digest of account and model, 16 hex digits."""

    def signature(self, encrypted_content: str) -> str:
        """The `signature` of a thinking block for a reasoning item with this `encrypted_content`, taken from
        `response.output_item.done`."""
        return f"{MADE_HERE}.{self.provider}.{_MARK}{self.owner}.{encrypted_content}"

    def encrypted_content(self, signature: str) -> str:
        """What `signature` was given; empty if the reasoning is another owner's."""
        prefix = self.signature("")
        return signature.removeprefix(prefix) if signature.startswith(prefix) else ""


def reasoning_owner(provider: str, *, account: str, model: str, key: bytes) -> ReasoningOwner:
    """The owner of what `model`, named as sent, makes at `provider` for `account`: the id of the login's
    account, else `Provider.account_of`, neither of which changes when a key or token is renewed. `key` is
    that of the state folder, so that the signature tells nothing about the account."""
    text = f"{model}\0{account}".encode(errors="surrogatepass")
    return ReasoningOwner(provider, blake2b(text, key=key, digest_size=8).hexdigest())
