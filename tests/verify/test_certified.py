"""Certificates as certification writes them: true ones verify, altered ones do not."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from pipeline.certify import certifier, certify, certify_again
from pipeline.config import ClassesConfig, DataConfig
from pipeline.data.loader import open_block_loader
from pipeline.layers.network import ExportedNetwork
from pipeline.lipschitz import tight
from pipeline.models import build_model
from pipeline.verify import verify_certificate
from pipeline.verify.datasets import ArrayImages, content_hash
from tests.certify.small import ArrayLoader, small_network

EPSILONS = ["36/255", "0.01", ".5"]


class HashedLoader(ArrayLoader):
    """With the content hash that real loaders have."""

    def dataset_sha256(self) -> str:
        images = self.images.permute(0, 2, 3, 1).contiguous().numpy()
        return content_hash(ArrayImages(images, self.labels.numpy()), lambda done, total: None)


def certified(
    network: ExportedNetwork, folder: Path, count: int, seed: int = 0, tight: bool = False
) -> Path:
    """Certify random images, nine of ten with the predicted class as label; keep the images."""
    random = np.random.default_rng(seed)
    classes = network.head.num_classes
    images = random.integers(0, 256, (count, *network.input_shape), dtype=np.uint8)
    labels = torch.from_numpy(random.integers(0, classes, count))
    predicted = certifier(network).certify(torch.from_numpy(images), labels).predict
    labels = np.where(random.random(count) < 0.9, predicted, labels.numpy())
    loader = HashedLoader(images, labels, classes)
    certify(network, loader, EPSILONS, folder / "certificate", tight=tight)
    np.savez(folder / "data.npz", image=images.transpose(0, 2, 3, 1), label=labels)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified(small_network(1), tmp_path_factory.mktemp("small"), 300)


@pytest.mark.parametrize(
    ("size", "channels", "depth", "width"), [(8, 1, 3, 16), (32, 3, 2, 16), (224, 3, 1, 8)]
)
def test_liresnet(tmp_path: Path, size: int, channels: int, depth: int, width: int) -> None:
    """Every stem, stride and padding of the models."""
    torch.manual_seed(size)
    model = build_model("liresnet", 10, size, channels, depth=depth, width=width)
    folder = certified(model.export(), tmp_path, 20)
    verdict = verify_certificate(folder / "certificate", folder / "data.npz")
    assert verdict.verified, verdict.refusal


@pytest.mark.parametrize("whole_work", [tight.WHOLE_WORK, 0.0])
def test_tight_bounds(tmp_path: Path, whole_work: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole operator and the semi-torus, proved again by the verifier's own factorisation."""
    monkeypatch.setattr(tight, "WHOLE_WORK", whole_work)
    torch.manual_seed(5)
    model = build_model("liresnet", 4, 8, 1, depth=2, width=8)
    folder = certified(model.export(), tmp_path, 30, tight=True)
    path = folder / "certificate" / "certificate.json"
    tree = json.loads(path.read_text())
    method = "whole-cholesky" if whole_work else "semi-torus-cholesky"
    assert sum(layer["method"] == method for layer in tree["layers"]) >= 2
    verdict = verify_certificate(folder / "certificate", folder / "data.npz")
    assert verdict.verified, verdict.refusal
    number = next(n for n, layer in enumerate(tree["layers"]) if layer["method"] == method)
    for damage in ("bound", "torus"):
        broken = json.loads(path.read_text())
        if damage == "bound":
            broken["layers"][number]["bound"] *= 1 - 1e-5
        else:  # a tight bound is below what the torus can prove
            broken["layers"][number]["evidence"] = {"torus": [9, 9], "twist": ["0", "0"]}
        (tmp_path / damage).mkdir()
        for name in ("model.safetensors", "images.tsv", "config.yaml"):
            shutil.copy(folder / "certificate" / name, tmp_path / damage / name)
        (tmp_path / damage / "certificate.json").write_text(json.dumps(broken))
        refusal = verify_certificate(tmp_path / damage).refusal
        assert refusal is not None and "claims the bound" in refusal, refusal


def test_small_network(small: Path) -> None:
    for data in (small / "data.npz", None):
        verdict = verify_certificate(small / "certificate", data)
        assert verdict.verified, verdict.refusal


@pytest.mark.parametrize("scale", [1e-5, 1e6])
def test_extreme_weights(tmp_path: Path, scale: float) -> None:
    folder = certified(small_network(2, scale), tmp_path, 30)
    verdict = verify_certificate(folder / "certificate", folder / "data.npz")
    assert verdict.verified, verdict.refusal


def test_a_constant_network_has_infinite_radii(tmp_path: Path) -> None:
    network = small_network(2)
    network.layers[1].weight[:] = 0
    folder = certified(network, tmp_path, 30)
    rows = (folder / "certificate" / "images.tsv").read_text().splitlines()[1:]
    assert "inf" in {row.split("\t")[3] for row in rows}
    verdict = verify_certificate(folder / "certificate", folder / "data.npz")
    assert verdict.verified, verdict.refusal


def scale_stem(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    tensors["stem.weight"] *= np.float32(1.001)
    save_file(tensors, directory / "model.safetensors")


def lower_bound(directory: Path) -> None:
    certificate = json.loads((directory / "certificate.json").read_text())
    certificate["layers"][1]["bound"] *= 1 - 2e-6
    (directory / "certificate.json").write_text(json.dumps(certificate))


def drop_row(directory: Path) -> None:
    lines = (directory / "images.tsv").read_text().splitlines(keepends=True)
    del lines[100]
    (directory / "images.tsv").write_text("".join(lines))


def change_label(directory: Path) -> None:
    lines = (directory / "images.tsv").read_text().splitlines(keepends=True)
    cells = lines[1].split("\t")
    cells[1] = str((int(cells[1]) + 1) % 3)
    lines[1] = "\t".join(cells)
    (directory / "images.tsv").write_text("".join(lines))


@pytest.mark.parametrize(
    ("alter", "sentence"),
    [
        (scale_stem, "layer 'stem' (conv2d) claims the bound"),
        (lower_bound, "layer 'stem' (conv2d) claims the bound"),
        (drop_row, "images.tsv has image 100 where image 99 must stand"),
        (change_label, "image 0 is marked"),
    ],
)
def test_altered_with_consistent_hashes(
    alter: Callable[[Path], None], sentence: str, small: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "certificate"
    shutil.copytree(small / "certificate", directory)
    alter(directory)
    path = directory / "certificate.json"
    certificate = json.loads(path.read_text())
    for name in certificate["files"]:
        certificate["files"][name] = hashlib.sha256((directory / name).read_bytes()).hexdigest()
    certificate["weights_sha256"] = certificate["files"]["model.safetensors"]
    path.write_text(json.dumps(certificate))
    verdict = verify_certificate(directory)
    assert verdict.refusal is not None and sentence in verdict.refusal, verdict.refusal


def test_a_subset_of_the_classes_of_a_file(tmp_path: Path) -> None:
    """The certificate names the classes; the verifier finds the images in the whole file."""
    random = np.random.default_rng(3)
    images = random.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(60) % 5
    np.savez(tmp_path / "data.npz", x_val=images, y_val=labels)
    torch.manual_seed(0)
    model = build_model("liresnet", 3, 8, 1, depth=1, width=8)
    data = DataConfig(classes=ClassesConfig(names=[4, 0, 3]))
    loader = open_block_loader(f"npz:{tmp_path / 'data.npz'}", "val", 8, data)
    certify(model.export(), loader, EPSILONS, tmp_path / "certificate")
    verdict = verify_certificate(tmp_path / "certificate", tmp_path / "data.npz")
    assert verdict.verified, verdict
    path = tmp_path / "certificate" / "certificate.json"
    tree = json.loads(path.read_text())
    assert tree["num_images"] == 36
    assert tree["dataset"]["classes"] == [4, 0, 3]
    for wrong in ([0, 4, 3], [4, 0], [4, 0, 3, 1], [4, 0, 0], [4, 0, "3"], []):
        tree["dataset"]["classes"] = wrong
        path.write_text(json.dumps(tree))
        assert not verify_certificate(tmp_path / "certificate", tmp_path / "data.npz").verified
    again = tmp_path / "again"
    tree["dataset"]["classes"] = [4, 0, 3]
    path.write_text(json.dumps(tree))
    assert certify_again(tmp_path / "certificate", again).dataset["classes"] == [4, 0, 3]
    images[7] += 1  # of class 2, which is not certified; then one that is
    for touched, refused in ((7, False), (4, True)):
        images[touched] += 1
        np.savez(tmp_path / "data.npz", x_val=images, y_val=labels)
        if refused:
            with pytest.raises(ValueError, match="is not the data set that"):
                certify_again(tmp_path / "certificate", tmp_path / "other")
        else:
            certify_again(tmp_path / "certificate", tmp_path / "same")
    loader.close()
