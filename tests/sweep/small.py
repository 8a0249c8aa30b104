"""Sweeps over configs/digits.yaml without training: made-up certificates, a stand-in program."""

import sys
from pathlib import Path

from pipeline import config
from pipeline.certify.certificate import FORMAT, Certificate
from pipeline.sweep import Sweep, parse_axis, plan
from pipeline.sweep.plan import Run

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "configs" / "digits.yaml"

# Takes launch/train.py's arguments. What it does is its depth: 1 fails, 2 is interrupted and says
# so, 3 leaves a process behind that holds the log, 4 ends without a certificate.
PROGRAM = """
import pathlib, shutil, subprocess, sys, time
options = dict(word[2:].split("=", 1) for word in sys.argv[1:] if "=" in word)
directory = pathlib.Path(options["output"]) / options["name"]
directory.mkdir(parents=True, exist_ok=True)
depth = options.get("model.depth", "8")
print("depth", depth, "config", pathlib.Path(sys.argv[2]).read_text().split("\\n")[0], flush=True)
if depth == "1":
    print("train: 1%\\rtrain: 2%\\n\\nerror: out of memory")
    sys.exit(3)
if depth == "2":
    (directory / "started").touch()
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        (directory / "saved").touch()
        sys.exit(130)
if depth == "3":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"])
if depth != "4":
    (directory / "certificate").mkdir(exist_ok=True)
    template = pathlib.Path(__file__).with_name("certificate.json")
    shutil.copy(template, directory / "certificate" / "certificate.json")
"""


def sweep(output: Path, *grid: str, seeds: tuple[int, ...] = (0, 1), words: tuple = ()) -> Sweep:
    """A plan in `output`."""
    axes = [parse_axis(word) for word in grid]
    return plan(DIGITS, [f"--output={output}", *words], axes, seeds)


def certificate(clean: float, vra: dict[str, float], data: str = "a" * 64) -> Certificate:
    """One with these numbers; the unsound ones are a hundredth higher."""
    return Certificate(
        directory=Path(),
        format=FORMAT,
        statement="R",
        claim="",
        claim_float="",
        num_images=100,
        num_classes=10,
        class_names=[],
        clean_accuracy=clean,
        vra=vra,
        vra_float=vra,
        vra_unsound={epsilon: share + 0.01 for epsilon, share in vra.items()},
        epsilons=list(vra),
        input={},
        lipschitz_bound=10 * clean,
        lipschitz_unsound=9 * clean,
        tight=False,
        layers=[],
        head={},
        model={},
        weights_sha256="",
        dataset_sha256=data,
        dataset={},
        files={},
        versions={},
        device="cpu",
        seconds={"bounds": 1.0, "images": 0.5},
    )


def finish(run: Run, made: Certificate) -> None:
    """Put a certificate where the run would put it."""
    run.certificate.mkdir(parents=True)
    config.save(run.config, run.certificate / "config.yaml")
    (run.certificate / "certificate.json").write_text(made.to_json())


def program(folder: Path) -> list[str]:
    """The stand-in for launch/train.py."""
    (folder / "program.py").write_text(PROGRAM)
    made = certificate(0.9, {"36/255": 0.8, "0.25": 0.7})
    (folder / "certificate.json").write_text(made.to_json())
    return [sys.executable, str(folder / "program.py")]
