"""report.html: a certificate as a person reads it. One file, no links to anything outside."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence
from html import escape

import numpy as np

from pipeline.certify.certificate import Certificate
from pipeline.certify.reporting.classes import ClassRow, class_section
from pipeline.certify.reporting.confusion import confusion_section
from pipeline.certify.reporting.html import section, table
from pipeline.certify.reporting.style import STYLE
from pipeline.certify.verdicts import Verdicts

ATTACK = ("<!-- attack -->", "<!-- /attack -->")
"""Between these tools/attack.py writes what it found."""
QUANTILES = {"10 % quantile": 0.1, "median": 0.5, "90 % quantile": 0.9}


def render_report(
    certificate: Certificate,
    verdicts: Verdicts,
    rows: list[ClassRow],
    curve: bytes,
    histogram: bytes,
    gallery: str,
    training: Sequence[tuple[str, str]] = (),
) -> str:
    """The HTML text.

    Args:
        certificate: the numbers.
        verdicts: the rows of images.tsv.
        rows: how the classes fare.
        curve: curve.png.
        histogram: histogram.png.
        gallery: HTML of the pictures (`gallery.py`).
        training: how the network was trained, names and values; may be empty.
    """
    name = f"{_model_name(certificate)} on {certificate.dataset['spec']}"
    sections = [
        _header(certificate, name),
        _headline(certificate),
        _figure("Certified accuracy against the l2 radius", curve),
        _comparison(certificate),
        _meaning(certificate),
        _radii(verdicts, histogram),
        class_section(certificate, rows),
        confusion_section(certificate, verdicts),
        gallery,
        f"{ATTACK[0]}{ATTACK[1]}\n",  # empty until somebody attacks
        _layers(certificate),
        _training(training),
        _identity(certificate),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Certificate: {escape(name)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        f"<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def _header(certificate: Certificate, name: str) -> str:
    channels, height, width = certificate.input["shape"]
    return (
        f"<header><p class='kind'>Certificate of l2 robustness</p><h1>{escape(name)}</h1>"
        f"<p>{certificate.num_images:,} images of {certificate.num_classes} classes, "
        f"{channels} × {height} × {width}. Distances are l2 over all channels and pixels, in the "
        "space of the stored image with values v/255: 36/255 is a distance of 36 grey levels over "
        "the whole image.</p></header>\n"
    )


def _headline(certificate: Certificate) -> str:
    cards = [
        _card("clean accuracy", f"{certificate.clean_accuracy:.2%}", "float64, strictly first")
    ]
    cards += [
        _card(
            f"certified at {text}",
            f"{certificate.vra[text]:.2%}",
            f"usual recipe: {certificate.vra_unsound[text]:.2%}",
        )
        for text in certificate.epsilons
    ]
    return f"<section class='cards'>{''.join(cards)}</section>\n"


def _card(label: str, value: str, note: str) -> str:
    return (
        f"<div class='card'><div class='label'>{escape(label)}</div>"
        f"<div class='value'>{escape(value)}</div><div class='note'>{escape(note)}</div></div>"
    )


def _figure(alternative: str, picture: bytes) -> str:
    encoded = base64.b64encode(picture).decode()
    return f"<figure><img alt='{alternative}' src='data:image/png;base64,{encoded}'></figure>\n"


def _comparison(certificate: Certificate) -> str:
    rows = [
        (
            f"ε = {text}",
            f"{certificate.vra[text]:.2%}",
            f"{certificate.vra_unsound[text]:.2%}",
            f"{100 * (certificate.vra_unsound[text] - certificate.vra[text]):+.2f} points",
        )
        for text in certificate.epsilons
    ]
    rows.append(
        (
            "Lipschitz constant of the network up to its head",
            f"{certificate.lipschitz_bound:.6g}",
            f"{certificate.lipschitz_unsound:.6g}",
            _relative(certificate.lipschitz_bound, certificate.lipschitz_unsound),
        )
    )
    return section(
        "What proof costs",
        f"<p>{_usual(certificate)} Here is the difference for this network.</p>"
        + table(["", "proved", "usual recipe", "difference"], rows, numeric=True),
    )


def _usual(certificate: Certificate) -> str:
    """What the literature does instead."""
    if certificate.method == "curvature":
        return (
            "Published numbers of this method look at the runner-up class alone, though another "
            "may be nearer, and at float32 values of the dual problem. Both make radii look larger."
        )
    return (
        "Most published numbers take layer norms from power iteration, which approaches them from "
        "below, and margins from float32, whose rounding nobody bounded. Both make radii look "
        "larger."
    )


def _relative(bound: float, estimate: float) -> str:
    return f"{bound / estimate - 1:+.4%}" if estimate > 0 else "–"


def _meaning(certificate: Certificate) -> str:
    return section(
        "What is proved, and what is not",
        f"<p class='claim'>{escape(certificate.claim)}</p>"
        "<p>An image counts as certified at ε if its radius is strictly greater than the fraction "
        "ε. Ties, NaN and misclassified images have radius 0. Layer norms, class distances, the "
        "rounding of the forward pass and of the radius itself are all bounded outwards in "
        "float64; statements R and F and their proofs are in <code>docs/certificate.md</code>"
        f"{_proofs_of_method(certificate)}.</p>"
        f"<p class='claim'>{escape(certificate.claim_float)}</p>"
        f"<p>Certified in this sense too: {_of_program(certificate)}.</p>"
        "<p><strong>Not covered:</strong> running the network at the attacked point in float32, "
        "TF32 or bfloat16; hardware faults; whatever made the stored uint8 image (JPEG, resizing, "
        "cropping); wrong labels. The certifying program is not verified by a proof assistant: the "
        "independent check below repeats its work by other methods and other code.</p>"
        f"<pre>{escape(verify_command(certificate))}</pre>",
    )


def _proofs_of_method(certificate: Certificate) -> str:
    if certificate.method == "product":
        return ""
    what = {"liplt": "pairwise constants by LipLT", "curvature": "curvature instead of a constant"}
    return f", and those of {what[certificate.method]} in <code>docs/small_networks.md</code>"


def _of_program(certificate: Certificate) -> str:
    """VRA by statement F."""
    return ", ".join(
        f"{certificate.vra_float[text]:.2%} at ε = {escape(text)}" for text in certificate.epsilons
    )


def verify_command(certificate: Certificate) -> str:
    """The commands that check this certificate; the verifier reads exact .beton files."""
    spec, size = shlex.quote(certificate.dataset["spec"]), certificate.input["shape"][1]
    check = f"python tools/verify_certificate.py {shlex.quote(str(certificate.directory))} --data"
    if certificate.dataset["spec"].endswith(".beton"):
        return f"{check} {spec}"
    return (
        f"python tools/write_beton.py --source {spec} --split val --preset exact --size {size} "
        f"--out exact.beton\n{check} exact.beton"
    )


def _radii(verdicts: Verdicts, histogram: bytes) -> str:
    certified = verdicts.radius[verdicts.radius > 0]
    rows = [("images with a certified radius", f"{len(certified):,} of {len(verdicts):,}")]
    if len(certified):
        quantiles = np.quantile(certified, list(QUANTILES.values()), method="lower")
        rows += [
            (f"{word} of their radii", f"{value:.4f} ({255 * value:.1f}/255)")
            for word, value in zip(QUANTILES, quantiles, strict=True)
        ]
        rows.append(("average certified radius, all images", f"{verdicts.radius.mean():.4f}"))
    rows.append(("largest rounding bound δ", f"{verdicts.delta.max():.2g}"))
    figure = _figure("How many images have which radius", histogram)
    return section("Radii", figure + table(["", ""], rows, numeric=True))


def _layers(certificate: Certificate) -> str:
    rows = [
        (
            layer["name"],
            layer["kind"],
            " × ".join(map(str, layer["input_shape"])),
            f"{layer['bound']:.8g}",
            layer["method"],
        )
        for layer in certificate.layers
    ]
    rows.append(("all, multiplied upwards", "", "", f"{certificate.lipschitz_bound:.8g}", ""))
    rows.append(
        (
            "largest margin constant of the head's pairs",
            "",
            "",
            f"{certificate.head['max_margin_lipschitz']:.8g}",
            "",
        )
    )
    return section(
        "Layers and their bounds",
        "<p>Each bound is proved not to be below the l2 operator norm of the layer at its input "
        "size, padding and stride.</p>"
        + table(["layer", "kind", "input", "bound", "method"], rows, numeric=False),
    )


def _training(facts: Sequence[tuple[str, str]]) -> str:
    return section("How it was trained", table(["", ""], facts, numeric=True)) if facts else ""


def _identity(certificate: Certificate) -> str:
    rows = [("data set (pixels and labels)", certificate.dataset_sha256)]
    rows += [(name, digest) for name, digest in certificate.files.items()]
    versions = ", ".join(f"{name} {text}" for name, text in certificate.versions.items())
    options = ", ".join(f"{key} {value}" for key, value in certificate.model.items())
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in certificate.seconds.items())
    facts = [
        ("model", options),
        ("device", certificate.device),
        ("time", seconds),
        ("versions", versions),
    ]
    return section(
        "Identity",
        table(["sha256 of", ""], rows, numeric=False, code=True)
        + table(["", ""], facts, numeric=False),
    )


def _model_name(certificate: Certificate) -> str:
    return str(certificate.model["name"])
