"""LaTeX tables in the manner of booktabs."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: "\\" + character for character in "&%$#_{}"},
}
_EPSILON = re.compile(r"\d+(\.\d+)?(/\d+)?|\.\d+")


def escaped(text: str) -> str:
    """Plain text as LaTeX."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def epsilon_tex(text: str) -> str:
    """36/255 as it is set in a formula."""
    return f"${text.replace('/', '{/}')}$"


def tabular(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A tabular whose first column is text and whose others are numbers.

    Args:
        head: LaTeX, apart from epsilons such as 36/255, which become "VRA at ...".
        rows: plain text, as many cells as `head`.
    """
    titles = [
        rf"VRA at {epsilon_tex(cell)} (\%)" if _EPSILON.fullmatch(cell) else cell for cell in head
    ]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(titles) + r" \\",
        r"\midrule",
        *(" & ".join(map(escaped, row)) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"
