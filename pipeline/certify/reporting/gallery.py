"""The surest and the hardest images, as pictures.

Notable: they are fetched from the loader after the rows are finished, and never change a number of
the certificate.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.certify.certificate import Certificate
from pipeline.certify.radius import exceeds
from pipeline.certify.reporting.html import section
from pipeline.certify.verdicts import Verdicts
from pipeline.data.base import BlockLoader
from pipeline.types import Epsilon

MOST = 7
"""Pictures of a kind."""
SIDE = 112
"""Pixels on the page; larger pictures are stored reduced to this, smaller ones as they are."""


@dataclass(frozen=True)
class Group:
    """Some images that have something in common."""

    title: str
    indices: tuple[int, ...]


def choose(verdicts: Verdicts, epsilon: Epsilon) -> list[Group]:
    """The images to show. Of equal ones the first."""
    certified = exceeds(verdicts.radius, epsilon)
    name = epsilon.text
    return [
        Group("Surest: certified with the largest radius", _first(certified, -verdicts.radius)),
        Group(
            f"Just certified at {name}: the smallest radius above it",
            _first(certified, verdicts.radius),
        ),
        Group(
            f"Just missed at {name}: right, and the largest radius not above it",
            _first(verdicts.correct & ~certified, -verdicts.radius),
        ),
        Group(
            "Hardest: wrong, and the farthest from being right",
            _first(~verdicts.correct & (verdicts.predict != verdicts.label), -reach(verdicts)),
        ),
    ]


def reach(verdicts: Verdicts) -> NDArray[np.float64]:
    """[N], how far around an image its predicted class, right or wrong, stays first; 0 for NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (verdicts.margin - verdicts.delta) / verdicts.lipschitz
    return np.nan_to_num(found, posinf=np.inf, neginf=0.0)


def _first(which: NDArray[np.bool_], key: NDArray[np.float64]) -> tuple[int, ...]:
    """Indices of `which` with the smallest keys, at most `MOST`."""
    candidates = np.flatnonzero(which)
    order = np.argsort(key[candidates], kind="stable")[:MOST]
    return tuple(candidates[order].tolist())


def fetch(loader: BlockLoader, groups: Sequence[Group]) -> dict[int, str]:
    """The images of the groups as data URIs, by index."""
    wanted = sorted({index for group in groups for index in group.indices})
    if not wanted:
        return {}
    images = loader.pictures(wanted).permute(0, 2, 3, 1).numpy()
    return {index: data_uri(image) for index, image in zip(wanted, images, strict=True)}


def data_uri(image: NDArray[np.uint8]) -> str:
    """[H, W, C] as a PNG in a URI; reduced if it is large."""
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    if max(picture.size) > SIDE:
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def gallery_section(
    certificate: Certificate,
    verdicts: Verdicts,
    groups: Sequence[Group],
    pictures: dict[int, str],
) -> str:
    """The part of the report."""
    body = ""
    for group in groups:
        if not group.indices:
            continue
        cards = "".join(
            _card(certificate, verdicts, index, pictures[index]) for index in group.indices
        )
        body += f"<h3>{escape(group.title)}</h3><div class='gallery'>{cards}</div>"
    return section("Surest and hardest images", body or "<p>There are none to show.</p>")


def _card(certificate: Certificate, verdicts: Verdicts, index: int, uri: str) -> str:
    names = certificate.class_names
    label, predict = names[verdicts.label[index]], names[verdicts.predict[index]]
    if verdicts.correct[index]:
        nearest = names[verdicts.binding[index]]
        lines = [label, f"radius {verdicts.radius[index]:.3f}", f"nearest: {nearest}"]
    else:
        here = reach(verdicts)[index]
        lines = [label, f"taken for {predict}", f"stays so within {here:.3f}"]
    text = "".join(f"<div>{escape(line)}</div>" for line in lines)
    # Enlarged pixels have sharp edges; a reduced photograph on a fine screen should not.
    kind = " class='enlarged'" if max(certificate.input["shape"][1:]) < SIDE else ""
    return (
        f"<div class='shot'><img{kind} alt='image {index}' src='{uri}' width='{SIDE}' "
        f"height='{SIDE}'>{text}<div class='small'>image {index}</div></div>"
    )
