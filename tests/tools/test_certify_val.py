"""tools/certify_val.py as it is typed: a run, a certificate, one process and two, mistakes."""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import config
from pipeline.certify import read_certificate
from pipeline.models import build_model
from pipeline.verify import verify_certificate
from tests.checkpoint.saving import save

ROOT = Path(__file__).parents[2]
TOOL = "tools/certify_val.py"


def start(*words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


Door = Callable[..., tuple[int, str, str]]


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Door:
    """The tool's main in this process: a start of Python costs seconds."""
    main = runpy.run_path(str(ROOT / TOOL))["main"]

    def call(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [TOOL, *map(str, words)])
        status = main()
        return (status, *capfd.readouterr())

    return call


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run directory with a checkpoint of an untrained network, and images it has opinions on."""
    folder = tmp_path_factory.mktemp("runs")
    settings = config.parse(
        {
            "name": "tiny",
            "output": str(folder),
            "data": {"val": f"npz:{folder / 'images.npz'}"},
            "model": {
                "name": "liresnet", "num_classes": 4, "image_size": 8, "in_channels": 1,
                "depth": 1, "width": 8,
            },
            "certification": {"epsilons": ["1/255", "0.05"]},
        }
    )  # fmt: skip
    model = settings.model
    torch.manual_seed(3)
    network = build_model(
        model.name, model.num_classes, model.image_size, model.in_channels, **model.options
    )
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8), dtype=np.uint8)
    with torch.no_grad():
        scores = network(torch.from_numpy(images)[:, None].float() / 255).logits
    labels = scores.argmax(1).numpy()
    labels[:30] = (labels[:30] + 1) % 4
    labels[30:34] = range(4)
    np.savez(folder / "images.npz", image=images, label=labels)
    settings.directory.mkdir()
    config.save(settings, settings.directory / "config.yaml")
    save(settings.directory / "checkpoints", 7, {"model": network.state_dict()}, {})
    return settings.directory, folder / "images.npz"


@pytest.fixture(scope="module")
def certified(finished_run: tuple[Path, Path]) -> Path:
    done = start(TOOL, "--run", finished_run[0])
    assert done.returncode == 0, done.stderr
    directory = finished_run[0] / "certificate"
    certificate = read_certificate(directory)
    assert f"report: {directory / 'report.html'}" in done.stdout
    for share in (certificate.clean_accuracy, *certificate.vra.values()):
        assert f"{share:.2%}" in done.stdout
    return directory


def test_the_certificate_of_a_run_passes_the_independent_check(
    certified: Path, finished_run: tuple[Path, Path]
) -> None:
    certificate = read_certificate(certified)
    assert certificate.num_images == 300 and certificate.epsilons == ["1/255", "0.05"]
    assert 0.85 < certificate.clean_accuracy < 0.95 and certificate.vra["1/255"] > 0.3
    assert certificate.model["depth"] == 1
    assert config.load(certified / "config.yaml") == config.load(finished_run[0] / "config.yaml")
    verdict = verify_certificate(certified, finished_run[1])
    assert verdict.verified, str(verdict)


def test_two_processes_make_the_same_certificate(
    certified: Path, finished_run: tuple[Path, Path], tmp_path: Path
) -> None:
    accelerate = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
    done = start(
        *accelerate, "--main_process_port", "0", TOOL, "--run", finished_run[0], "--out", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1  # rank 0 alone talks
    here, there = (
        [line.split("\t")[:5] + line.split("\t")[6:] for line in text.splitlines()]
        for text in ((d / "images.tsv").read_text() for d in (tmp_path, certified))
    )
    assert len(here) == 301 and here == there


def test_a_certificate_can_be_certified_at_other_radii(
    certified: Path, tmp_path: Path, door: Door
) -> None:
    words = ("--run", certified, "--out", tmp_path, "--epsilon")
    status, out, _ = door(*words, "3/255", "1.0")
    assert status == 0 and f"report: {tmp_path / 'report.html'}" in out
    new, old = read_certificate(tmp_path), read_certificate(certified)
    assert new.epsilons == ["3/255", "1.0"] and new.weights_sha256 == old.weights_sha256
    assert new.lipschitz_bound == old.lipschitz_bound
    # The same again costs nothing; other radii in the same folder are refused until forced.
    status, out, _ = door(*words, "3/255", "1.0")
    assert status == 0 and "already certified" in out
    status, _, error = door(*words, "5/255")
    assert status == 1 and "--force" in error
    assert read_certificate(tmp_path).epsilons == ["3/255", "1.0"]
    status, _, _ = door(*words, "5/255", "--force")
    assert status == 0 and read_certificate(tmp_path).epsilons == ["5/255"]
    # Tight bounds are other bounds, of the same function.
    status, _, error = door(*words, "5/255", "--tight")
    assert status == 1 and "--tight" in error
    status, _, _ = door(*words, "5/255", "--tight", "--force")
    tight = read_certificate(tmp_path)
    assert status == 0 and tight.tight and tight.weights_sha256 == old.weights_sha256
    assert tight.lipschitz_unsound < tight.lipschitz_bound < old.lipschitz_bound


def test_the_checkpoint_of_a_step_can_be_certified(
    finished_run: tuple[Path, Path], certified: Path, tmp_path: Path, door: Door
) -> None:
    words = ("--run", finished_run[0], "--checkpoint", "7", "--epsilon", "0.05", "--out", tmp_path)
    status, out, _ = door(*words)
    assert status == 0 and "as it was after step 7" in out
    assert read_certificate(tmp_path).weights_sha256 == read_certificate(certified).weights_sha256


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run", "no/such/run"], "no/such/run"),
        (["--run", "RUN", "--epsilon", "wide"], "epsilon 'wide' is not a number"),
        (["--run", "RUN", "--data", "digits"], "has 10 classes, the model's head has 4"),
        (["--run", "RUN/certificate"], "--out"),
        (["--run", "RUN/certificate", "--checkpoint", "7"], "is a certificate of one network"),
        (["--run", "RUN", "--checkpoint", "bset"], "did you mean 'best'?"),
        (["--run", "RUN", "--checkpoint", "best"], "was validated"),
        (["--run", "RUN", "--checkpoint", "8"], "no checkpoint of step 8: it has 7"),
    ],
)
def test_mistakes_get_one_sentence(
    words: list[str], message: str, certified: Path, finished_run: tuple[Path, Path], door: Door
) -> None:
    status, _, error = door(*(word.replace("RUN", str(finished_run[0])) for word in words))
    assert status == 1
    (line,) = error.splitlines()
    assert line.startswith("error: ") and message in line


def test_help_has_examples(door: Door, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as finished:
        door("--help")
    assert finished.value.code == 0 and "accelerate launch" in capfd.readouterr().out
