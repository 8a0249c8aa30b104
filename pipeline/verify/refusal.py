"""Refusal: the one exception of the verifier, a sentence that names the first thing that is wrong.

Notable: a certificate may be hostile, and its text is printed on a terminal. `quote` shortens what
was read and escapes control characters, so that a class name cannot move the cursor or end a line.
"""

from __future__ import annotations

LONGEST_QUOTE = 80


class Refusal(Exception):
    """The certificate does not hold; the message is one sentence without a full stop."""


def require(condition: bool, sentence: str) -> None:
    """Raise `Refusal(sentence)` unless `condition`. A NaN comparison is False, hence refused."""
    if not condition:
        raise Refusal(sentence)


def quote(value: object) -> str:
    """`value` in quotes, ASCII only, at most 80 characters: safe to print whatever it holds."""
    text = value if isinstance(value, str) else str(value)
    shown = ascii(text[: LONGEST_QUOTE + 1])
    return shown if len(shown) <= LONGEST_QUOTE else shown[: LONGEST_QUOTE - 3] + "..."
