"""Draw labelled images from a trained generator, as many of each class, into a .beton or .npz file.

On one process; on all GPUs of a machine; on SLURM (every key of the section `sampling`):
    python tools/ddpm_sample.py --run runs/ddpm_digits --count 2000 --out generated.beton
    torchrun --nproc-per-node 8 -- tools/ddpm_sample.py --run RUN --count 1000000 --out generated.beton
    python launch/slurm.py --config configs/ddpm_cifar10.yaml --task ddpm_sample --sampling.out generated.beton
Guided, and only what a classifier of ours recognises:
    python tools/ddpm_sample.py --run RUN --count 50000 --out generated.beton --guidance 1.5 \\
        --filter runs/CLASSIFIER --confidence 0.5
Somebody else's samples (an .npz with image and label), checked and written as a .beton:
    python tools/ddpm_sample.py --run RUN --convert 1m.npz --filter runs/CLASSIFIER --out 1m.beton

What is not given is taken from the section `sampling` of the run's config, and what is not there
either is the default in brackets.

Sample k of class c depends on (seed, c, k), the generator and these settings alone, on any number of
processes. A killed command goes on when it is repeated. OUT.json, the data card, says what the
samples come from and how near they come to the training images; OUT.pairs.png shows the nearest.
The exit status is as in launch/train.py.
"""  # noqa: E501

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from pipeline.config import FilterConfig, checked
from pipeline.diffusion.generate import convert, generate, sampling_of
from pipeline.outcome import FINISHED, Outcome, exit_status
from pipeline.training.stop_request import stop_requests


def main() -> int:
    """Read the command line and draw; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, metavar="DIR", help="of tools/ddpm_train.py")
    add("--out", required=True, metavar="FILE", help="ends in .beton or .npz")
    add("--count", type=int, help="samples (50000)")
    add("--steps", type=int, help="evaluations of the network a sample (50)")
    add("--sampler", help="dpm++ (default) or ddim")
    add("--guidance", type=float, help="weight of classifier-free guidance (1: none)")
    add("--seed", type=int, help="(0)")
    add("--batch-size", type=int, help="images drawn together (256)")
    add("--precision", help="fp32, or bf16 autocast (auto: bf16 on a GPU)")
    add("--compile", action=argparse.BooleanOptionalAction, help="torch.compile the network")
    add("--checkpoint", help="newest (default), or a step")
    add("--nearest", type=int, help="samples compared with the training images (1000; 0: none)")
    add("--filter", metavar="RUN", help="a classifier's run directory")
    add("--confidence", type=float, help="least probability of the label (0.5), with --filter")
    add(
        "--convert",
        type=Path,
        metavar="FILE.npz",
        help="write this instead of drawing; with --out, --filter and --force only",
    )
    add("--force", action="store_true", default=None, help="replace what is there")
    words = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    run, source = words.pop("run"), words.pop("convert", None)
    judge, least = words.pop("filter", None), words.pop("confidence", None)

    drawn = sorted({*words, *([] if least is None else ["confidence"])} - {"out", "force"})
    if source is not None and drawn:
        option = drawn[0].replace("_", "-")
        parser.error(f"--{option} is of drawing, and --convert draws nothing: leave one out")
    if least is not None and judge is None:
        parser.error("--confidence is of a filter: give --filter RUN too")

    def work() -> Outcome:
        if source is not None:
            classifier = None if judge is None else Path(judge)
            with stop_requests() as stop:
                place, force = Path(words["out"]), "force" in words
                convert(source, run, place, classifier, force, stop.leave_if_asked)
            return FINISHED
        if judge is not None:
            given = {"classifier": judge} | ({} if least is None else {"confidence": least})
            words["filter"] = checked(FilterConfig, given)
        with stop_requests() as stop:
            generate(run, sampling_of(run, words), stop.leave_if_asked)
        return FINISHED

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
