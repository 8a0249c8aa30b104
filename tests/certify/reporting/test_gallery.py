"""Which images are shown, and that they are those images."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.certify import Certificate, Verdicts, certify
from pipeline.certify.reporting.gallery import (
    MOST,
    SIDE,
    choose,
    data_uri,
    fetch,
    gallery_section,
    reach,
)
from pipeline.certify.verdicts import read_rows
from pipeline.types import Epsilon
from tests.certify.small import ArrayLoader, labelled_images, small_network

EPSILON = Epsilon.parse("4/255")


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Certificate, Verdicts, ArrayLoader]:
    directory = tmp_path_factory.mktemp("gallery")
    network = small_network(0)
    loader = ArrayLoader(*labelled_images(network, 5, 700), network.head.num_classes)
    certificate = certify(network, loader, ["4/255"], directory, threads=1)
    rows = read_rows((directory / "images.tsv").read_text().splitlines()[1:])
    return certificate, rows, loader


def picture(uri: str) -> np.ndarray:
    encoded = uri.removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def test_the_groups_are_the_extremes(finished) -> None:
    _, verdicts, _ = finished
    surest, just, missed, hardest = choose(verdicts, EPSILON)
    beyond = float(EPSILON)
    certified = np.flatnonzero(verdicts.radius > beyond)
    assert len(surest.indices) == MOST
    assert verdicts.radius[list(surest.indices)].min() >= np.sort(verdicts.radius)[-MOST]
    assert (
        verdicts.radius[list(just.indices)].max() <= np.sort(verdicts.radius[certified])[MOST - 1]
    )
    assert all(verdicts.correct[i] and verdicts.radius[i] <= beyond for i in missed.indices)
    assert hardest.indices and not verdicts.correct[list(hardest.indices)].any()
    reach = (verdicts.margin - verdicts.delta) / verdicts.lipschitz
    wrong = np.flatnonzero(~verdicts.correct & (verdicts.predict != verdicts.label))
    assert reach[hardest.indices[0]] == reach[wrong].max()


def test_the_pictures_are_those_images(finished) -> None:
    _, verdicts, loader = finished
    groups = [replace(choose(verdicts, EPSILON)[0], indices=(3, 699))]
    pictures = fetch(loader, groups)
    assert set(pictures) == {3, 699}
    for index, uri in pictures.items():
        assert np.array_equal(picture(uri), loader.images[index, 0].numpy())


def test_the_report_shows_them(finished) -> None:
    certificate, verdicts, _ = finished
    html = (certificate.directory / "report.html").read_text()
    shown = [int(number) for number in re.findall(r"<div class='small'>image (\d+)</div>", html)]
    assert shown == [i for group in choose(verdicts, EPSILON) for i in group.indices]


def test_large_pictures_are_reduced_and_small_ones_left() -> None:
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (224, 300, 3), dtype=np.uint8)
    assert picture(data_uri(large)).shape == (84, SIDE, 3)
    small = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(picture(data_uri(small)), small)


def test_nothing_to_show(finished) -> None:
    certificate, verdicts, loader = finished
    none = replace(
        verdicts, radius=np.zeros(700), correct=np.zeros(700, bool), predict=verdicts.label
    )
    groups = choose(none, EPSILON)
    assert all(group.indices == () for group in groups)
    assert "none to show" in gallery_section(certificate, none, groups, fetch(loader, groups))


def test_infinite_radii_come_first(finished) -> None:
    _, verdicts, _ = finished
    radius = verdicts.radius.copy()
    best = np.flatnonzero(verdicts.correct)[-1]
    radius[best] = np.inf
    assert choose(replace(verdicts, radius=radius), EPSILON)[0].indices[0] == best


def test_reach_is_the_radius_where_right_and_never_nan(finished) -> None:
    _, verdicts, _ = finished
    right = verdicts.radius > 0
    assert np.allclose(reach(verdicts)[right], verdicts.radius[right], rtol=1e-12)
    first = dict(zip(("margin", "lipschitz"), np.array([[1, np.nan, 1], [0, 1, 2]]), strict=True))
    few = {name: getattr(verdicts, name)[:3] for name in vars(verdicts)}
    odd = Verdicts(**{**few, **first, "delta": np.zeros(3), "radius_float": np.zeros(3)})
    assert reach(odd).tolist() == [np.inf, 0, 0.5]


def test_wrong_images_say_how_far_they_stay_wrong(finished) -> None:
    certificate, verdicts, loader = finished
    hardest = choose(verdicts, EPSILON)[3]
    html = gallery_section(certificate, verdicts, [hardest], fetch(loader, [hardest]))
    for index in hardest.indices:
        assert f"taken for class {verdicts.predict[index]}" in html
        assert f"stays so within {reach(verdicts)[index]:.3f}" in html


def test_only_enlarged_pictures_are_pixelated(finished) -> None:
    certificate, verdicts, loader = finished
    groups = choose(verdicts, EPSILON)
    pictures = fetch(loader, groups)
    assert "class='enlarged'" in gallery_section(certificate, verdicts, groups, pictures)
    photos = replace(certificate, input={**certificate.input, "shape": [3, 224, 224]})
    assert "enlarged" not in gallery_section(photos, verdicts, groups, pictures)


def test_names_are_escaped(finished, tmp_path: Path) -> None:
    certificate, verdicts, loader = finished
    groups = choose(verdicts, EPSILON)
    names = ["<b>&"] * certificate.num_classes
    html = gallery_section(
        replace(certificate, class_names=names), verdicts, groups, fetch(loader, groups)
    )
    assert "<b>" not in html and "&lt;b&gt;&amp;" in html
