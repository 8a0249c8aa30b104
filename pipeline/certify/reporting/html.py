"""The few HTML pieces that the report is made of. Everything that is not markup is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def section(title: str, body: str) -> str:
    """A heading and what belongs to it; `body` is HTML."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>\n"


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], numeric: bool, code: bool = False
) -> str:
    """A table of plain text; with `numeric`, all columns but the first are right-aligned."""
    kinds = " ".join(word for word, wanted in (("numeric", numeric), ("code", code)) if wanted)
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    thead = f"<thead><tr>{top}</tr></thead>" if any(head) else ""
    return f"<div class='scroll'><table class='{kinds}'>{thead}<tbody>{body}</tbody></table></div>"


def folded(summary: str, body: str, opened: bool) -> str:
    """`body`, HTML, behind a line that opens and closes it."""
    attribute = " open" if opened else ""
    return f"<details{attribute}><summary>{escape(summary)}</summary>{body}</details>"
