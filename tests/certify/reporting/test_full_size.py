"""The whole report at ImageNet's size: small enough to mail, and nothing of a name is markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.certify import Certificate, Verdicts, certify
from pipeline.certify.writer import write_report
from pipeline.types import Epsilon
from tests.certify.small import ArrayLoader, labelled_images, small_network

COUNT, CLASSES = 50_000, 1000
EPSILONS = ("36/255", "72/255", "1.0")


class Noise:
    """A loader whose photographs no PNG makes smaller."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def pictures(self, indices: Sequence[int]) -> torch.Tensor:
        self.asked += indices
        noise = np.random.default_rng(0).integers(0, 256, (len(indices), 3, 224, 224), np.uint8)
        return torch.from_numpy(noise)


class Attributes(HTMLParser):
    """Every tag and attribute that a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.titles: set[str | None] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}
        self.titles |= {value for name, value in attrs if name == "title"}


def verdicts_of(count: int, classes: int) -> Verdicts:
    rng = np.random.default_rng(0)
    label = np.arange(count) % classes
    other = (label + rng.integers(1, classes, count)) % classes
    correct = rng.random(count) < 0.6
    radius = np.where(correct, rng.exponential(0.3, count), 0.0)
    radius[np.flatnonzero(correct)[0]] = np.inf
    return Verdicts(
        label=label,
        predict=np.where(correct, label, other),
        radius=radius,
        correct=correct,
        binding=np.where(correct, other, label),
        margin=rng.random(count),
        lipschitz=np.ones(count),
        delta=np.full(count, 1e-9),
        radius_float=radius,
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    loader = ArrayLoader(*labelled_images(small_network(0), 0, 90))
    return certify(small_network(0), loader, EPSILONS, tmp_path_factory.mktemp("small"), threads=1)


def enlarged(small: Certificate, directory: Path, verdicts: Verdicts, names: list[str]):
    vra = {text: verdicts.vra(Epsilon.parse(text)) for text in EPSILONS}
    return replace(
        small,
        directory=directory,
        num_images=len(verdicts),
        num_classes=len(names),
        class_names=names,
        clean_accuracy=verdicts.clean_accuracy,
        vra=vra,
        vra_float=vra,
        vra_unsound=vra,
        input={**small.input, "shape": [3, 224, 224]},
    )


def test_fifty_thousand_images_of_a_thousand_classes(small: Certificate, tmp_path: Path) -> None:
    verdicts, loader = verdicts_of(COUNT, CLASSES), Noise()
    names = [f"n{number:08d} church, church building {number}" for number in range(CLASSES)]
    certificate = enlarged(small, tmp_path, verdicts, names)
    write_report(certificate, verdicts, verdicts.radius, loader)
    html = (tmp_path / "report.html").read_text()
    assert len(html.encode()) < 3_000_000
    assert all(html.count(name + "<") >= 1 for name in names)
    assert html.count("data:image/png") == 2 + len(loader.asked) <= 40
    assert (tmp_path / "certificate.json").read_text() == certificate.to_json()


def test_names_are_never_markup(small: Certificate, tmp_path: Path) -> None:
    hostile = ["' onmouseover='x", '" onload="x', "<script>x</script>", "</td><h1>", "a & b"]
    verdicts = verdicts_of(200, len(hostile))
    write_report(enlarged(small, tmp_path, verdicts, hostile), verdicts, verdicts.radius, Noise())
    parser = Attributes()
    parser.feed((tmp_path / "report.html").read_text())
    assert parser.names <= {"charset", "name", "content", "lang", "class", "style", "alt", "src",
                            "width", "height", "title", "open"}  # fmt: skip
    assert "script" not in parser.tags
    assert parser.titles == set(hostile)
