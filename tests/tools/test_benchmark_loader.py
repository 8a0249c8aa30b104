"""tools/benchmark_loader.py as it is typed."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.betons import smooth_pictures, write

ROOT = Path(__file__).parents[2]
TOOL = "tools/benchmark_loader.py"


def benchmark(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, TOOL, *map(str, words)], cwd=ROOT, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip


def test_a_table_and_json(tmp_path: Path) -> None:
    path = write(tmp_path / "photos.beton", smooth_pictures([(40, 50)] * 6), [0, 1] * 3, "jpg")
    out = tmp_path / "found.json"
    done = benchmark(
        "--betons", path, "--workers", "1", "--size", "32", "--batch-size", "2", "--batches", "2",
        "--rounds", "2", "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    head, row = done.stdout.splitlines()
    assert head.startswith("loader") and row.startswith("FFCV photos.beton")
    (loader,) = json.loads(out.read_text())["loaders"]
    assert loader["workers"] == 1 and len(loader["images_per_second"]) == 2


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        ([], 2, "nothing to measure"),
        (["--betons", "none.beton"], 1, "none.beton does not exist"),
        (["--folder", "none"], 1, "--folder none holds no"),
    ],
)
def test_mistakes_get_one_sentence(
    words: list[str],
    status: int,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [TOOL, *words])
    main = runpy.run_path(str(ROOT / TOOL))["main"]
    try:
        found = main()
    except SystemExit as left:
        found = left.code
    assert found == status
    assert sentence in capsys.readouterr().err.splitlines()[-1]
