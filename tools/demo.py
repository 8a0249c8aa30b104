"""From real handwriting to a checked certificate: what `make demo` runs.

Each step is one of the public commands, printed before it runs, so that the demo is also the
shortest tutorial. FFCV reads the .beton files where it is installed, the memory backend elsewhere;
both give the same batches, and so the same network.
"""

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = Path("build/demo")
RUN = FOLDER / "digits"


def step(*words: str | Path) -> None:
    """Print a command and run it; end the demo with its exit status if it fails."""
    command = ["python", *map(str, words)]
    print(f"\n$ {shlex.join(command)}", flush=True)
    done = subprocess.run([sys.executable, *command[1:]], cwd=ROOT)
    if done.returncode != 0:
        sys.exit(done.returncode)


def main() -> None:
    """Write the data, train, certify, check."""
    began = time.monotonic()
    if (ROOT / RUN / "certificate" / "certificate.json").exists():
        shutil.rmtree(ROOT / RUN)  # an interrupted demo goes on; a finished one starts anew
    betons = {split: FOLDER / f"digits_{split}.beton" for split in ("train", "val")}
    for split, beton in betons.items():
        if not (ROOT / beton).exists():
            step("tools/write_beton.py", "--source", "digits", "--split", split,
                 "--preset", "exact", "--out", beton)  # fmt: skip
    step("launch/train.py", "--config", "configs/digits.yaml", "--output", FOLDER,
         "--data.train", betons["train"], "--data.val", betons["val"])  # fmt: skip
    step("tools/verify_certificate.py", RUN / "certificate", "--data", betons["val"])
    print(f"\ndemo: {time.monotonic() - began:.0f} s; open {RUN / 'certificate' / 'report.html'}")


if __name__ == "__main__":
    main()
