"""The totals of a certificate, recomputed from its rows: accuracies are exact fractions.

Notable: a certified radius counts at ε if it is strictly greater than the *rational* ε; float64 of
36/255, 72/255 and 108/255 all lie below it.
"""

from __future__ import annotations

from fractions import Fraction

from pipeline.verify.refusal import quote, require
from pipeline.verify.rows import Row
from pipeline.verify.strict_json import Record, parse_epsilon


def exceeds(radius: float, epsilon: Fraction) -> bool:
    """radius > ε exactly; an infinite radius exceeds every ε."""
    return radius == float("inf") or Fraction(radius) > epsilon


def check_totals(certificate: Record, rows: list[Row]) -> dict[str, Fraction]:
    """Recompute clean accuracy and VRA at every ε.

    Returns:
        The ε as written, with their exact values.

    Raises:
        Refusal: naming the total that is wrong.
    """
    epsilons = {text: parse_epsilon(text) for text in certificate.texts("epsilons")}
    require(
        len(epsilons) == len(certificate.items("epsilons")) > 0,
        "certificate.json: the list of epsilons is empty or names one twice",
    )
    vra, of_program, unsound = (
        certificate.record(key) for key in ("vra", "vra_float", "vra_unsound")
    )
    for record in (vra, of_program, unsound):
        require(
            set(record.values) == set(epsilons),
            f"{record.where} is for other epsilons than the list of epsilons",
        )
    correct = sum(row.correct for row in rows)
    _check_share(certificate, "clean_accuracy", correct, len(rows))
    for text, epsilon in epsilons.items():
        for record, radii in (
            (vra, [row.radius for row in rows if row.correct]),
            (of_program, [row.radius_float for row in rows if row.correct]),
        ):
            certified = sum(exceeds(radius, epsilon) for radius in radii)
            _check_share(record, text, certified, len(rows))
        share = unsound.number(text)
        require(0 <= share <= 1, f"{unsound.where}: {quote(text)} is not between 0 and 1")
    return epsilons


def _check_share(record: Record, key: str, part: int, whole: int) -> None:
    """The number under `key` must be part/whole, rounded once."""
    claimed, share = record.number(key), part / whole  # int / int is correctly rounded
    require(
        claimed == share,
        f"{record.where}: {quote(key)} is {claimed!r}, the rows give {part}/{whole} = {share!r}",
    )
