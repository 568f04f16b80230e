"""What a request cost."""

from signalbox.config.rules import Glob, Price


def cost(
    prices: tuple[tuple[Glob, Price], ...],
    model: str,
    input_tokens: int,
    output_tokens: int,
    cache_creation_input_tokens: int,
    cache_read_input_tokens: int,
) -> float | None:
    """USD by the first glob that matches the model as sent, to 6 decimals; None where none does."""
    price = next((price for glob, price in prices if glob.matches(model)), None)
    if price is None:
        return None
    millionths = (
        input_tokens * price.input
        + output_tokens * price.output
        + cache_creation_input_tokens * price.cache_write
        + cache_read_input_tokens * price.cache_read
    )
    return round(millionths / 1_000_000, 6)
