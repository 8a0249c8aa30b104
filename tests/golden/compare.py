"""Does this tree compute the same losses as another commit, to the bit, on this machine?

    python tests/golden/compare.py HEAD~1

Runs the golden configuration with the code of REV (in a temporary git worktree) and with the code
of this working tree, one after the other, and demands equality of every loss. Exit status 0 when
equal, 1 when not. A change that is not meant to alter results must pass it.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.golden.losses import ROOT, golden_losses


def losses_of(revision: str, folder: Path) -> list[float]:
    """Golden losses of a commit."""
    tree = folder / "tree"
    subprocess.run(
        ["git", "worktree", "add", "--quiet", "--detach", str(tree), revision],
        cwd=ROOT,
        check=True,
    )
    try:
        return golden_losses(folder / "theirs", code=tree)
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def main() -> int:
    """Compare and print the first difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", help="the commit to compare with, e.g. HEAD~1")
    revision = parser.parse_args().revision
    with tempfile.TemporaryDirectory() as name:
        theirs = losses_of(revision, Path(name))
        mine = golden_losses(Path(name) / "mine")
    for step, (a, b) in enumerate(zip(theirs, mine, strict=True)):
        if a != b:
            print(f"step {step}: {revision} has {a!r}, this tree {b!r}")
            return 1
    print(f"{len(mine)} losses equal to the bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
