"""How far a run is, and how long the sweep will take."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pipeline.certify import read_certificate
from pipeline.sweep.grid import Point
from pipeline.sweep.plan import Run

_TAIL_BYTES = 65536  # a row of a deep network is some kilobytes


def progress(run: Run) -> str:
    """`epoch 3 of 40, loss 0.831`, from the end of metrics.jsonl."""
    steps, epochs = run.config.training.steps, run.config.training.epochs
    for row in last_rows(run.config.directory / "metrics.jsonl"):
        last = row["step"] == steps if steps else row["epoch"] + 1 == epochs
        if row["kind"] == "epoch" and last:
            return "certifying"
        if row["kind"] == "step":
            loss = "not finite" if row["loss"] is None else f"{row['loss']:.3f}"
            where = (
                f"step {row['step']} of {steps}"
                if steps
                else (f"epoch {row['epoch'] + 1} of {epochs}")
            )
            return f"{where}, loss {loss}"
    return "starting"


def result(run: Run) -> str:
    """`clean 95.28 %, VRA 80.00 % at 36/255`, at the radius that was trained for if it is there."""
    certificate = read_certificate(run.certificate)
    target = run.config.epsilon.target
    epsilon = target if target in certificate.vra else certificate.epsilons[0]
    return (
        f"clean {100 * certificate.clean_accuracy:.2f} %, "
        f"VRA {100 * certificate.vra[epsilon]:.2f} % at {epsilon}"
    )


def seconds_left(
    durations: Mapping[Point, Sequence[float]],
    waiting: Sequence[Point],
    running: Sequence[tuple[Point, float]],
    jobs: int,
) -> float | None:
    """Estimate from whole runs of the same point, or else of any.

    Args:
        durations: seconds of finished runs.
        waiting: points of runs to come.
        running: points of runs under way, and their seconds so far.
        jobs: runs at a time.

    Returns:
        None as long as no run is finished.
    """
    known = [seconds for several in durations.values() for seconds in several]
    if not known:
        return None

    def whole(point: Point) -> float:
        return fmean(durations.get(point) or known)

    work = sum(whole(point) for point in waiting)
    rest = [max(0.0, whole(point) - seconds) for point, seconds in running]
    return max((work + sum(rest)) / jobs, *rest, 0.0)


def in_words(seconds: float) -> str:
    """`41 s`, `12 min`, `3 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def last_rows(path: Path) -> list[dict[str, Any]]:
    """Whole rows at the end of the file, the newest first."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES)
        file.seek(start)
        lines = file.read().split(b"\n")
    whole = lines[1:-1] if start else lines[:-1]  # the last line may be half written
    return [json.loads(line) for line in reversed(whole)]
