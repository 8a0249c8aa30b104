"""What certificates prove at their radii, beside what the method's own paper would count.

That is, for curvature, the runner-up class alone (CRC, Tables 3, 4, 8 and 9), and for LipLT the
power iteration's constants (CRM, Table 1): no proof either way (`certify/unsound.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.certify.certificate import Certificate, certificate_in, read_certificate, table_lines
from pipeline.certify.studies.tables import Row
from pipeline.certify.verdicts import read_rows


def accuracies(directories: Sequence[Path], epsilon: Sequence[str] = ()) -> list[Row]:
    """A row for each certificate; percent of all its images.

    Args:
        directories: certificates, or runs that ended with one.
        epsilon: of those that all were certified for, as written there; by default the first's.

    Raises:
        ValueError: there is no intact certificate, or not for such an epsilon.
    """
    places = [certificate_in(directory) for directory in directories]
    found = [read_certificate(place) for place in places]
    wanted = list(epsilon) or found[0].epsilons
    return [
        _row(directory, place, certificate, wanted)
        for directory, place, certificate in zip(directories, places, found, strict=True)
    ]


def _row(directory: Path, place: Path, certificate: Certificate, epsilons: Sequence[str]) -> Row:
    rows = read_rows(table_lines(place, certificate))
    row: dict[str, str | int | float] = {
        "network": str(directory),
        "images": certificate.num_images,
        "clean": 100 * certificate.clean_accuracy,
    }
    for epsilon in epsilons:
        if epsilon not in certificate.vra:
            raise ValueError(
                f"{place} was not certified for --epsilon {epsilon}: its epsilons are "
                f"{', '.join(certificate.epsilons)}"
            )
        row[f"proved {epsilon}"] = 100 * certificate.vra[epsilon]
        row[f"paper's {epsilon}"] = 100 * certificate.vra_unsound[epsilon]
    right = np.asarray(rows.correct, dtype=bool)
    row["mean radius"] = float(rows.radius[right].mean()) if right.any() else 0.0
    return row
