"""The door: arguments, exit status, last line."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.verify.mini import Mini

DOOR = Path(__file__).parents[2] / "tools" / "verify_certificate.py"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, DOOR, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


def test_verified_refused_and_usage(tmp_path: Path) -> None:
    mini = Mini.make()
    directory, data = mini.write(tmp_path / "c"), mini.write_data(tmp_path / "data.npz")
    done = run(directory, "--data", data)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("VERIFIED clean ")
    assert "layer bounds         ok" in done.stdout

    done = run(directory)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].endswith("(logits not checked: no --data)")

    (directory / "config.yaml").write_text("changed")
    done = run(directory)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("REFUSED: config.yaml has the sha256")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["nowhere"], "nowhere is not a directory"),
        ([".", "--data", "nothing.beton"], "nothing.beton is not a file"),
    ],
)
def test_usage(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_help_says_what_is_checked_and_trusted() -> None:
    done = run("--help")
    assert done.returncode == 0
    for words in ("checked", "trusted", "Gram iteration", "without --data", "Exit status"):
        assert words in done.stdout
