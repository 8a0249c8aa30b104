"""The benchmark's numbers as a table and as JSON."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from typing import Any

import PIL
import torch

from pipeline.data.benchmark.contenders import BASELINE, Contender, Settings


def table(contenders: Sequence[Contender]) -> str:
    """Medians over rounds; beside the speed, how many times that of PIL with as many workers."""
    pil = {
        c.workers: statistics.median(c.images_per_second) for c in contenders if c.name == BASELINE
    }
    width = max(len(contender.name) for contender in contenders)
    lines = [
        f"{'loader':<{width}}  workers   img/s    least - most  against PIL  img/CPU s  first batch"
    ]
    for c in contenders:
        speed = statistics.median(c.images_per_second)
        spread = f"{min(c.images_per_second):.0f} - {max(c.images_per_second):.0f}"
        ratio = f"{speed / pil[c.workers]:.2f} x" if c.workers in pil else ""
        lines.append(
            f"{c.name:<{width}}  {c.workers:>7}  {speed:>6.0f}  {spread:>14}  {ratio:>11}  "
            f"{statistics.median(c.images_per_cpu_second):>9.0f}  {c.first_batch_seconds:>9.2f} s"
        )
    return "\n".join(lines)


def record(settings: Settings, contenders: Sequence[Contender]) -> dict[str, Any]:
    """Everything as JSON values: the settings, the machine, every round of every loader."""
    return {
        "settings": {
            "betons": [str(path) for path in settings.betons],
            "generated": None if settings.generated is None else str(settings.generated),
            "folder": None if settings.folder is None else str(settings.folder),
            "workers": list(settings.workers),
            "size": settings.size,
            "crop": settings.crop,
            "batch_size": settings.batch_size,
            "batches": settings.batches,
            "rounds": settings.rounds,
        },
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pillow": PIL.__version__,
        },
        "loaders": [
            {
                "name": contender.name,
                "workers": contender.workers,
                "first_batch_seconds": contender.first_batch_seconds,
                "images_per_second": contender.images_per_second,
                "images_per_cpu_second": contender.images_per_cpu_second,
            }
            for contender in contenders
        ],
    }
