"""The report says the certificate's numbers, and needs nothing but itself."""

import csv
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.certify import Certificate, certify
from pipeline.certify.reporting.classes import class_rows
from pipeline.certify.reporting.plots import certified_accuracy, draw_curve
from pipeline.certify.reporting.report import render_report, verify_command
from pipeline.certify.reporting.tables import csv_table, latex_table, text_table
from pipeline.certify.verdicts import Verdicts, read_rows
from pipeline.types import Epsilon
from tests.certify.small import ArrayLoader, labelled_images, small_network

EPSILONS = ["2/255", "12/255", "1.0"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Certificate, Verdicts, bytes]:
    directory = tmp_path_factory.mktemp("report")
    loader = ArrayLoader(*labelled_images(small_network(0), 0, 90))
    names = ("<script>alert(1)</script>", "cat & dog", "é")
    loader.info = replace(loader.info, class_names=names)
    certificate = certify(small_network(0), loader, EPSILONS, directory, threads=1)
    rows = (directory / "images.tsv").read_text().splitlines()[1:]
    return certificate, read_rows(rows), (directory / "curve.png").read_bytes()


class Reader(HTMLParser):
    """Checks that tags are balanced; collects the text and what is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert not reader.open
    return reader


def test_the_report_is_self_contained_and_well_formed(finished) -> None:
    certificate, _, _ = finished
    html = (certificate.directory / "report.html").read_text()
    reader = read(html)
    assert reader.sources and all(
        source.startswith("data:image/png;base64,") for source in reader.sources
    )
    assert "http" not in html and "url(" not in html and "@import" not in html
    assert "<script" not in html


def test_the_report_says_the_numbers(finished) -> None:
    certificate, verdicts, _ = finished
    text = " ".join(read((certificate.directory / "report.html").read_text()).text)
    for share in (
        certificate.clean_accuracy,
        *certificate.vra.values(),
        *certificate.vra_unsound.values(),
    ):
        assert f"{share:.2%}" in text
    for layer in certificate.layers:
        assert layer["name"] in text and f"{layer['bound']:.8g}" in text and layer["method"] in text
    for digest in (certificate.dataset_sha256, *certificate.files.values()):
        assert digest in text
    assert certificate.claim in text and certificate.versions["torch"] in text
    assert f"python tools/verify_certificate.py {certificate.directory} --data" in text
    assert f"{(verdicts.radius > 0).sum()} of 90" in text
    assert "<script>alert(1)</script>" in text and "cat & dog" in text  # as text, escaped


@pytest.mark.parametrize(
    ("spec", "written"), [("val.beton", ""), ("npz:x/a.npz", "npz:x/a.npz"), ("digits", "digits")]
)
def test_the_verify_command_names_data_that_the_verifier_reads(finished, spec, written) -> None:
    certificate = replace(finished[0], dataset={"spec": spec})
    *write, check = verify_command(certificate).splitlines()
    data = "exact.beton" if written else spec
    assert check == f"python tools/verify_certificate.py {certificate.directory} --data {data}"
    expected = f"--source {written} --split val --preset exact --size 4 --out exact.beton"
    assert [line.endswith(expected) for line in write] == [True] * bool(written)


def render(certificate: Certificate, verdicts: Verdicts, curve: bytes) -> str:
    rows = class_rows(certificate, verdicts)
    return render_report(certificate, verdicts, rows, curve, curve, gallery="")


def test_many_classes_are_folded(finished) -> None:
    certificate, verdicts, curve = finished
    assert "<details" not in render(certificate, verdicts, curve)
    names = [f"class {number}" for number in range(40)]
    many = replace(certificate, class_names=names, num_classes=40)
    labels = np.arange(len(verdicts)) % 40
    html = render(many, replace(verdicts, label=labels), curve)
    assert "<details>" in html and "all 40 classes" in html


def test_a_set_without_any_certified_image_has_a_report(finished) -> None:
    certificate, verdicts, _ = finished
    none = replace(verdicts, radius=np.zeros(90), correct=np.zeros(90, dtype=bool))
    curve = draw_curve("none", none.radius, none.radius, 0.0, [(Epsilon.parse("1/255"), 0.0)])
    assert "0 of 90" in render(certificate, none, curve)


def test_the_curve_is_the_share_above_each_radius() -> None:
    rng = np.random.default_rng(0)
    radius = np.where(rng.random(300) < 0.3, 0.0, rng.random(300).round(2))
    radius[:3] = np.inf
    steps, shares = certified_accuracy(radius)
    assert steps[0] == 0 and (np.diff(steps) > 0).all() and np.isfinite(steps).all()
    for at, share in zip(steps, shares, strict=True):
        assert share == np.mean(radius > at)
    assert shares[-1] == 0.01


@pytest.mark.parametrize("radius", [np.zeros(5), np.full(5, np.inf), np.array([0.0, 0.2, 1e-9])])
def test_curves_of_odd_sets_are_drawn(radius: np.ndarray) -> None:
    marks = [(Epsilon.parse("36/255"), 0.5), (Epsilon.parse("9"), 0.0)]
    picture = Image.open(io.BytesIO(draw_curve("odd", radius, radius, 0.9, marks)))
    assert picture.size[0] > 1000 and len(set(picture.convert("L").getdata())) > 10


def test_the_tables_have_the_same_numbers(finished) -> None:
    certificate, _, _ = finished
    rows = list(csv.DictReader(io.StringIO(csv_table(certificate))))
    assert [row["epsilon"] for row in rows] == EPSILONS
    for row in rows:
        assert float(row["vra"]) == certificate.vra[row["epsilon"]]
        assert float(row["vra_unsound"]) == certificate.vra_unsound[row["epsilon"]]
        assert float(row["clean_accuracy"]) == certificate.clean_accuracy
    tex = latex_table(certificate)
    assert tex.count("{") == tex.count("}") and tex.count(" & ") == 3 * (len(EPSILONS) + 1)
    for share in certificate.vra.values():
        assert f"& {100 * share:.2f}" in tex
        assert f"{share:.2%}" in text_table(certificate)
    for name, content in (("table.csv", csv_table(certificate)), ("table.tex", tex)):
        assert Path(certificate.directory / name).read_text() == content
