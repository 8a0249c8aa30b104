"""The command line of tools/write_beton.py."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.betons.format import read_beton

ROOT = Path(__file__).parents[2]
TOOL = [sys.executable, str(ROOT / "tools" / "write_beton.py")]


def write_beton(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TOOL, *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def test_help_has_examples() -> None:
    done = write_beton("--help")
    assert done.returncode == 0
    assert "examples:" in done.stdout
    assert "npz:PATH" in done.stdout


def test_digits_from_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "new" / "digits.beton"
    done = write_beton(
        "--source", "digits", "--split", "val", "--preset", "exact", "--out", out, "--workers", "2"
    )
    assert done.returncode == 0, done.stderr
    assert "360 images in 10 classes" in done.stdout
    assert "about" in done.stdout, "the estimate comes first"
    assert "write: 100%" in done.stderr
    assert len(read_beton(out)) == 360


@pytest.mark.parametrize(
    ("source", "out", "sentence"),
    [
        ("digit", "x.beton", "did you mean digits?"),
        ("digits", "x.bin", "must end in .beton"),
        ("npz:none.npz", "x.beton", "does not exist"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, source: str, out: str, sentence: str) -> None:
    done = write_beton(
        "--source", source, "--split", "val", "--preset", "exact", "--out", tmp_path / out
    )
    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_nothing_under_the_final_name_and_nothing_running(
    tmp_path: Path,
) -> None:
    images = np.zeros((20_000, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "a.npz", image=images, label=np.zeros(20_000, int))
    out = tmp_path / "a.beton"
    words = ["--source", f"npz:{tmp_path / 'a.npz'}", "--split", "train", "--preset", "train"]
    writer = subprocess.Popen(
        [*TOOL, *words, "--out", str(out)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    partial = out.with_name("a.beton.partial")
    while not (partial.exists() and partial.stat().st_size) and writer.poll() is None:
        time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert not out.exists()
    left = partial.stat().st_size
    assert left, "killed while it was writing"
    time.sleep(0.5)
    assert partial.stat().st_size == left, "somebody goes on writing"
    done = write_beton(*words, "--out", out)
    assert done.returncode == 0, done.stderr
    assert len(read_beton(out)) == 20_000
    assert not partial.exists()
