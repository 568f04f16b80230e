"""The Compose Specification as a judge."""

import compose_spec


def validate(text: str) -> None:
    """Raises ValueError where the Compose Specification does not allow it."""
    options = compose_spec.PyOptions()
    options.apply_merge = True
    options.from_yaml(text).validate()
