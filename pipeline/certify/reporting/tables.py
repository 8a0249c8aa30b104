"""The headline numbers as CSV, LaTeX and text."""

from __future__ import annotations

import csv
import io

from pipeline.certify.certificate import Certificate
from pipeline.certify.reporting.latex import tabular
from pipeline.types import Epsilon


def csv_table(certificate: Certificate) -> str:
    """One line per epsilon; `vra` and `vra_float` are proved, `vra_unsound` is not."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["epsilon", "epsilon_value", "clean_accuracy", "vra", "vra_float", "vra_unsound"]
    )
    for epsilon in certificate.epsilons:
        writer.writerow(
            [
                epsilon,
                repr(float(Epsilon.parse(epsilon))),
                repr(certificate.clean_accuracy),
                repr(certificate.vra[epsilon]),
                repr(certificate.vra_float[epsilon]),
                repr(certificate.vra_unsound[epsilon]),
            ]
        )
    return text.getvalue()


def latex_table(certificate: Certificate) -> str:
    """A booktabs tabular with clean accuracy and VRA in percent, a column per epsilon."""
    columns = certificate.epsilons
    proved = [f"{100 * certificate.vra[text]:.2f}" for text in columns]
    usual = [f"{100 * certificate.vra_unsound[text]:.2f}" for text in columns]
    return tabular(
        ["", r"Clean (\%)", *columns],
        [
            ["Certified", f"{100 * certificate.clean_accuracy:.2f}", *proved],
            [f"{certificate.usual_recipe.capitalize()} (no proof)", "", *usual],
        ],
    )


def text_table(certificate: Certificate) -> str:
    """What is printed at the end of a certification."""
    lines = [
        f"certified {certificate.num_images} images of {certificate.num_classes} classes: clean "
        f"accuracy {certificate.clean_accuracy:.2%}, Lipschitz bound "
        f"{certificate.lipschitz_bound:.6g} (power iteration {certificate.lipschitz_unsound:.6g})",
        f"  {'epsilon':<12}{'VRA (proved)':>14}{'usual VRA (not proved)':>26}{'difference':>14}",
    ]
    for text in certificate.epsilons:
        sound, unsound = certificate.vra[text], certificate.vra_unsound[text]
        lines.append(
            f"  {text:<12}{sound:>14.2%}{unsound:>26.2%}{100 * (unsound - sound):>7.2f} points"
        )
    return "\n".join(lines)
