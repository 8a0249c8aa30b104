"""The command lines of generators: trained, killed, resumed; drawn by one process and by two."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml

from pipeline.data.betons.format import read_beton
from pipeline.diffusion.train import AVERAGE
from tests.diffusion.tiny import settings
from tests.training.test_resume import final

ROOT = Path(__file__).parents[2]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(*words: str | Path, launcher: list[str] | None = None) -> subprocess.Popen[str]:
    command = [*(launcher or [sys.executable]), *map(str, words)]
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    out, errors = process.communicate(timeout=500)
    assert process.returncode == status, errors
    return out + errors


def kill_when(process: subprocess.Popen[str], folder: Path, pattern: str) -> bool:
    """SIGKILL to all of it as soon as a file is there; False if it was finished before."""
    while process.poll() is None and not list(folder.glob(pattern)):
        time.sleep(0.01)
    running = process.poll() is None
    if running:  # torchrun gives its workers sessions of their own
        family = psutil.Process(process.pid)
        for member in [family, *family.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                member.kill()
    process.communicate()
    return running


def recipe(folder: Path, epochs: int, **options: object) -> list[str | Path]:
    chosen = settings(folder)
    chosen.training.epochs = epochs
    chosen.checkpoint.keep = 2
    path = folder / "tiny.yaml"
    folder.mkdir(exist_ok=True)
    tree = chosen.model_dump(mode="json")
    tree["model"].update(options)
    path.write_text(yaml.safe_dump(tree))
    return ["tools/ddpm_train.py", "--config", path]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generator")
    finish(start(*recipe(folder, epochs=6)))
    return folder / "tiny"


def test_a_killed_training_goes_on_to_the_same_bits(generator: Path, tmp_path: Path) -> None:
    words = recipe(tmp_path / "wild", epochs=6)
    killed = kill_when(start(*words), tmp_path / "wild" / "tiny" / "checkpoints", "step_000004")
    assert killed, "it was finished before"
    finish(start(*words))
    (mine, rows), (whole, expected) = final(tmp_path / "wild" / "tiny"), final(generator)
    assert mine.step == whole.step == 12 and rows == expected
    for part in ("model", AVERAGE):
        for name, tensor in whole.tensors.part(part).items():
            assert torch.equal(mine.tensors.whole(part, name), tensor), name


def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    """Noise, timesteps and hidden labels are the images', whoever has them; dropout is a rank's."""
    alone = recipe(tmp_path / "alone", 3, dropout=0.0)
    together = recipe(tmp_path / "together", 3, dropout=0.0)
    finish(start(*alone))
    finish(start(*together, launcher=TWO))
    (one, rows), (two, others) = (final(tmp_path / name / "tiny") for name in ("alone", "together"))
    assert one.step == two.step == 6
    losses = [[row["loss"] for row in each if row["kind"] == "step"] for each in (rows, others)]
    assert len(losses[0]) == 6 and losses[1] == pytest.approx(losses[0], rel=1e-4)
    for name, tensor in one.tensors.part(AVERAGE).items():
        assert torch.allclose(two.tensors.whole(AVERAGE, name), tensor, atol=1e-4), name


def test_two_processes_one_killed_draw_what_one_draws(generator: Path, tmp_path: Path) -> None:
    def words(out: Path) -> list[str | Path]:
        return [
            "tools/ddpm_sample.py", "--run", generator, "--count", "133", "--out", out,
            "--batch-size", "10", "--steps", "8", "--guidance", "1.5", "--nearest", "40",
        ]  # fmt: skip

    calm, wild = tmp_path / "calm.beton", tmp_path / "wild.beton"
    said = finish(start(*words(calm)))
    assert "draw: 100%" in said
    killed = kill_when(
        start(*words(wild), launcher=TWO), tmp_path / "wild.beton.drawn", "*1.images.npy"
    )
    assert killed, "it was finished before"
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.drawn/*.images.npy")}
    assert kept and not wild.exists()
    process = start(*words(wild), launcher=TWO)
    finish(process)

    one, two = read_beton(calm), read_beton(wild)
    assert len(one) == len(two) == 133
    assert one.labels.tolist() == two.labels.tolist() == [i % 10 for i in range(133)]
    assert all((one.image(i) == two.image(i)).all() for i in range(133))
    assert len({one.image(i).tobytes() for i in range(133)}) == 133
    assert calm.read_bytes() == wild.read_bytes()
    assert not list(tmp_path.glob("*.drawn"))
    cards = [json.loads(Path(f"{path}.json").read_text()) for path in (calm, wild)]
    for card, path in zip(cards, (calm, wild), strict=True):
        assert card["similarity"].pop("pairs") == f"{path.name}.pairs.png"
    assert cards[0] == cards[1]
    card = cards[0]
    assert card["images_per_class"] == [14, 14, 14, *[13] * 7]
    trained_on = json.loads((generator / "training_data.json").read_text())
    assert card["training_data"]["dataset_sha256"] == trained_on["dataset_sha256"]
    assert card["similarity"]["compared"] == 40 and card["checkpoint"] == 12
    near = card["similarity"]["nearest_training_image_l2"]
    assert 0 < near["least"] <= near["median"] <= near["most"]
    assert Path(f"{calm}.pairs.png").read_bytes() == Path(f"{wild}.pairs.png").read_bytes()

    more = tmp_path / "more.npz"  # another count, another format: the same samples
    finish(start(*words(more)[:4], "50", *words(more)[5:]))
    with np.load(more) as arrays:
        assert arrays["label"].tolist() == [i % 10 for i in range(50)]
        assert all((arrays["image"][i] == one.image(i)).all() for i in range(50))


def test_a_mistake_is_one_sentence(generator: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.npz"
    words = ["tools/ddpm_sample.py", "--run", generator, "--out", out, "--steps", "0"]
    said = finish(start(*words), status=1)
    assert "--steps 0: input should be greater than 0" in said and "Traceback" not in said


@pytest.mark.parametrize("words", [["--count", "5"], ["--filter", "x", "--confidence", "0.5"]])
def test_what_converting_does_not_heed_is_refused(words: list[str]) -> None:
    given = ["tools/ddpm_sample.py", "--run", "x", "--convert", "x.npz", "--out", "x.beton"]
    said = finish(start(*given, *words), status=2)
    assert f"{words[-2]} is of drawing, and --convert draws nothing" in said


def test_two_processes_convert_once(generator: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    theirs, out = tmp_path / "theirs.npz", tmp_path / "theirs.beton"
    np.savez(theirs, image=images, label=np.arange(20) % 10)
    finish(start("tools/ddpm_sample.py", "--run", generator, "--convert", theirs, "--out", out,
                 launcher=TWO))  # fmt: skip
    written = read_beton(out)
    assert all((written.image(i) == images[i]).all() for i in range(20))
