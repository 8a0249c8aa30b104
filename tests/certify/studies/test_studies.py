"""The tables of tools/small_networks.py against the same numbers worked out plainly."""

import io
import itertools
import json
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from pipeline.certify import certify
from pipeline.certify.studies import curvature, distribution
from pipeline.certify.studies.accuracies import accuracies
from pipeline.certify.studies.figure import Place, draw_gap, gamma_of, kind_of
from pipeline.certify.studies.pairwise import pairwise_constants
from pipeline.certify.studies.subject import Subject, open_subject, plain_network
from pipeline.certify.verdicts import read_rows
from pipeline.data.loader import open_block_loader
from pipeline.layers.network import ExportedNetwork
from pipeline.models import build_model
from tests.lipschitz.printed_algorithms import algorithm_1, algorithm_2

ROOT = Path(__file__).parents[3]
TOOL = str(ROOT / "tools" / "small_networks.py")
CLASSES, SIDE, COUNT = 3, 8, 40


def network_of(scale: float, **options) -> ExportedNetwork:
    torch.manual_seed(0)
    model = build_model("mlp", CLASSES, SIDE, 1, hidden=[6], **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model.export()


def subject_of(network: ExportedNetwork, count: int = COUNT) -> Subject:
    """Images whose labels are the network's own, but every tenth."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, SIDE, SIDE), dtype=np.uint8)
    images = torch.from_numpy(pixels)
    labels = network.logits(network.trunk(images.double() / 255)).argmax(1)
    labels[::10] = (labels[::10] + 1) % CLASSES
    return Subject("tiny", network, images, labels)


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same network and images by `liplt` and by `product`."""
    folder = tmp_path_factory.mktemp("certified")
    torch.manual_seed(0)
    network = build_model(
        "mlp", CLASSES, SIDE, 1, hidden=[6, 5], activation="relu", curvature=False
    ).export()
    subject = subject_of(network)
    data = folder / "tiny.npz"
    np.savez(data, image=subject.images.numpy().transpose(0, 2, 3, 1), label=subject.labels.numpy())
    found = {"data": data}
    for method in ("liplt", "product"):
        loader = open_block_loader(f"npz:{data}", "val", SIDE)
        certify(network, loader, [0.01], folder / method, method=method, threads=1)
        loader.close()
        found[method] = folder / method
    return found


def test_targets_are_runner_up_least_and_never_the_label() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, -1.0]])
    labels = torch.tensor([0, 0])
    assert curvature.target_classes(logits, labels, "runner-up").tolist() == [2, 1]
    assert curvature.target_classes(logits, labels, "least").tolist() == [1, 2]
    many = curvature.target_classes(logits[:1].expand(200, -1), labels[:1].expand(200), "random")
    assert set(many.tolist()) == {1, 2}


@pytest.mark.parametrize("scale", [2.5, 6.0])
def test_success_rates_are_those_of_algorithms_1_and_2(scale: float) -> None:
    subject = subject_of(network_of(scale, activation="sigmoid"))
    certifier = curvature.certifier_of(subject.network)
    radius = 0.8
    row = curvature.success_rates(subject, certifier, radius)
    network = plain_network(subject.network)
    labels, x0 = subject.labels, subject.center
    target = curvature.target_classes(network.logits(x0), labels, "runner-up")
    margin = network.margin(labels, target)
    concave = torch.from_numpy(certifier.curvature[labels, target])
    convex = torch.from_numpy(certifier.curvature[target, labels])
    steepest = torch.maximum(concave, convex)
    x, _ = algorithm_2(margin, x0, concave, steepest, radius)
    attacked = ((x - x0).norm(dim=1) >= radius * 0.999).double().mean()
    nearest, _ = algorithm_1(margin, x0, concave, convex)
    right = network.logits(x0).argmax(1) == labels
    begin = margin(x0)[0].abs()
    reached = (right & (margin(nearest)[0].abs() <= 2e-3 * begin)).double().mean()
    assert row["accuracy %"] == pytest.approx(90)
    assert row["attack success %"] == pytest.approx(100 * float(attacked), abs=6)
    assert row["certificate success %"] == pytest.approx(100 * float(reached), abs=6)


def test_the_curvature_gap_is_the_mean_over_pairs() -> None:
    subject = subject_of(network_of(3.0, activation="tanh"))
    certifier = curvature.certifier_of(subject.network)
    row = curvature.curvature_gap(subject, certifier, fewest=3)
    network = plain_network(subject.network)
    target = curvature.target_classes(network.logits(subject.center), subject.labels, "runner-up")
    steepest: dict[tuple[int, int], list[float]] = {}
    for x, j, i in zip(subject.center, subject.labels.tolist(), target.tolist(), strict=True):

        def margin(p, j=j, i=i):
            logits = network.logits(p[None])[0]
            return logits[j] - logits[i]

        hessian = torch.autograd.functional.hessian(margin, x)
        steepest.setdefault((j, i), []).append(float(torch.linalg.eigvalsh(hessian).abs().max()))
    chosen = {pair: max(each) for pair, each in steepest.items() if len(each) >= 3}
    assert row["pairs"] == len(chosen) >= 2
    assert row["K_lb"] == pytest.approx(np.mean(list(chosen.values())), rel=0.03)
    assert row["K_lb"] <= row["K_ub (used)"] <= row["K_ub (Theorem 4)"] * (1 + 1e-6)
    with pytest.raises(ValueError, match="lesser --fewest"):
        curvature.curvature_gap(subject, certifier, fewest=1000)


def test_accuracies_are_those_of_the_certificates(certified: dict[str, Path]) -> None:
    tight, loose = accuracies([certified["liplt"], certified["product"]])
    stored = json.loads((certified["liplt"] / "certificate.json").read_text())
    rows = read_rows((certified["liplt"] / "images.tsv").read_text().splitlines()[1:])
    assert list(tight) == list(loose)
    assert tight["clean"] == pytest.approx(100 * rows.correct.mean()) == pytest.approx(90)
    assert tight["proved 0.01"] == pytest.approx(100 * (rows.radius > 0.01).mean())
    assert tight["paper's 0.01"] == 100 * stored["vra_unsound"]["0.01"]
    assert tight["mean radius"] == pytest.approx(rows.radius[rows.correct].mean())
    assert tight["mean radius"] > loose["mean radius"] > 0
    with pytest.raises(
        ValueError, match=r"not certified for --epsilon 0\.5: its epsilons are 0\.01"
    ):
        accuracies([certified["product"]], ["0.5"])


def test_accuracies_of_a_run_are_those_of_its_certificate(certified: dict[str, Path], tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "certificate").symlink_to(certified["liplt"])
    (run,) = accuracies([tmp_path / "run"])
    (own,) = accuracies([certified["liplt"]])
    assert {**own, "network": run["network"]} == run


def test_tables_of_certificates() -> None:
    subject = subject_of(network_of(6.0, activation="sigmoid"))
    runner_up, least = curvature.certificates(subject, ["runner-up", "least"], 20)
    assert runner_up["images"] == 20 and runner_up["CROWN (not rounded)"] > 0
    assert runner_up["CRC"] <= least["CRC"] + 1e-9
    row = curvature.local_certificates(subject, 0.3, 20)
    assert row["CRC (global)"] == pytest.approx(runner_up["CRC"])
    assert row["CRC (global)"] <= row["CRC (local, proved)"]
    assert row["global > 0.3 %"] <= row["local > 0.3 %"]
    relu = subject_of(network_of(3.0, activation="relu", curvature=False))
    (quadratic,) = curvature.certificates(relu, count=10)
    assert quadratic["quadratic"] > quadratic["CROWN (not rounded)"] > 0


def test_pairwise_constants_are_those_of_explicit_matrices(certified: dict[str, Path]) -> None:
    naive, improved = pairwise_constants(certified["liplt"])
    network = open_subject(certified["liplt"]).network
    first, second = (layer.weight.astype(float) for layer in network.layers if layer.tensors())
    rows = network.head.weight.astype(float)

    def norm(matrix) -> float:
        return float(np.linalg.norm(np.atleast_2d(matrix), 2))

    def theorem_3(last) -> float:
        m_0 = norm(first)
        m_1 = norm(second @ first) / 2 + norm(second) * m_0 / 2
        return (
            norm(last @ second @ first) / 4 + norm(last @ second) * m_0 / 4 + norm(last) * m_1 / 2
        )

    pairs = list(itertools.combinations(range(CLASSES), 2))
    for row, constant in (
        (naive, lambda last: norm(first) * norm(second) * norm(last)),
        (improved, theorem_3),
    ):
        expected = {
            "L_ij": np.mean([constant(rows[j] - rows[i]) for j, i in pairs]),
            "L_i + L_j": np.mean([constant(rows[j]) + constant(rows[i]) for j, i in pairs]),
            "√2·L": math.sqrt(2) * constant(rows),
        }
        for name, value in expected.items():
            assert value * (1 - 1e-12) <= row[name] <= value * (1 + 1e-4)
    with pytest.raises(ValueError, match="was not certified by liplt"):
        pairwise_constants(certified["product"])


def test_pairwise_constants_are_not_made_of_residual_networks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_model("slope_resnet", CLASSES, 4, 1, width=6, inner=5, blocks=1).export()
    images = np.zeros((4, 4, 4, 1), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", image=images, label=np.arange(4) % CLASSES)
    loader = open_block_loader(f"npz:{tmp_path / 'data.npz'}", "val", 4)
    certify(network, loader, [0.01], tmp_path / "residual", method="liplt", threads=1)
    loader.close()
    with pytest.raises(ValueError, match=r"residual network.*leave it out"):
        pairwise_constants(tmp_path / "residual")


def test_tables_name_what_they_are_not_for() -> None:
    leaky = subject_of(network_of(3.0, activation="leaky_relu", curvature=False))
    with pytest.raises(ValueError, match="activation is leaky_relu, and this table is for relu"):
        curvature.certificates(leaky)
    strided = build_model("cnn", CLASSES, SIDE, 1, plan="4c3f").export()
    with pytest.raises(ValueError, match="conv2d") as refusal:
        curvature.certificates(subject_of(strided))
    assert "certification.method" not in str(refusal.value)
    with pytest.raises(ValueError, match="softplus, sigmoid or tanh") as refusal:
        curvature.certifier_of(leaky.network)
    assert "take" not in str(refusal.value)


def test_naive_radii_are_those_of_a_certificate_by_the_product(certified: dict[str, Path]) -> None:
    lines = (certified["product"] / "images.tsv").read_text().splitlines()
    naive = distribution.naive_radii(certified["liplt"])
    assert (naive == read_rows(lines[1:]).radius).all()
    assert (distribution.radii_of(certified["liplt"]) >= naive).all()


def test_the_gap_is_drawn_against_gamma(tmp_path: Path) -> None:
    row = {"K_lb": 1.0, "K_ub (Theorem 4)": 3.0, "K_ub (used)": 2.0}
    one, two = "2×[1024], tanh", "3×[1024], tanh"
    narrow, wide = (
        imread(io.BytesIO(draw_gap([Place(*each) for each in places], [row] * len(places))))
        for places in (((one, 0.01), (one, 0.0)), ((one, 0.01), (two, 0.0), (one, 0.0)))
    )
    assert wide.shape[1] > 1.3 * narrow.shape[1], "a panel for each kind"
    text = (ROOT / "configs" / "mnist_crt_2x1024.yaml").read_text()
    for written, expected in ((text, 0.01), (text.replace("gamma: 0.01", "gamma: 0.5"), 0.5)):
        (tmp_path / "config.yaml").write_text(written)
        assert gamma_of(tmp_path) == expected
    (tmp_path / "config.yaml").write_text((ROOT / "configs" / "mnist_relu_2x1024.yaml").read_text())
    with pytest.raises(ValueError, match="has no gamma"):
        gamma_of(tmp_path)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"no config\.yaml of a training.*leave out --out"):
        gamma_of(tmp_path)


def test_kinds_are_named_as_in_the_paper() -> None:
    for hidden, expected in (
        ([6], "2×[6], tanh"),
        ([6, 6], "3×[6], tanh"),
        ([6, 5, 6], "4×[6, 5, 6], tanh"),
    ):
        network = build_model("mlp", CLASSES, SIDE, 1, hidden=hidden, activation="tanh").export()
        assert kind_of(plain_network(network)) == expected


def run_tool(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr("sys.argv", [TOOL, *map(str, words)])
    return runpy.run_path(TOOL)["main"]()


def test_the_tool_prints_tables_and_draws(
    certified: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture, table = tmp_path / "figure.png", tmp_path / "table.csv"
    words = ["--naive", "--out", picture, "--csv", table, "--epsilon", "0.01"]
    assert run_tool(monkeypatch, "radii", certified["liplt"], *words) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    header, ours, naive = table.read_text().splitlines()
    assert header.endswith("beyond 0.01 %") and "naive" in naive
    tree = json.loads((certified["liplt"] / "certificate.json").read_text())
    assert float(ours.split(",")[-1]) == pytest.approx(100 * tree["vra"]["0.01"])
    run = tmp_path / "run"
    run.mkdir()
    (run / "certificate").symlink_to(certified["liplt"])
    assert run_tool(monkeypatch, "radii", run, "--csv", table, "--epsilon", "0.01") == 0
    assert table.read_text().splitlines()[1].split(",")[1:] == ours.split(",")[1:]
    capsys.readouterr()
    for directory in (certified["liplt"], run):
        assert run_tool(monkeypatch, "pairwise", directory) == 0
        assert f"{directory}  LipLT" in capsys.readouterr().out
    for words, sentence in (
        (["success", tmp_path], "neither a certificate directory nor a run"),
        (["success", certified["liplt"]], "softplus, sigmoid or tanh"),
        (["local", certified["liplt"], "--images", "0"], "--images 0 must be at least 1"),
        (["success", certified["liplt"], "--radius", "-1"], "--radius -1 must be positive"),
        (["curvature", certified["liplt"], "--fewest", "0"], "--fewest 0 must be at least 1"),
    ):
        assert run_tool(monkeypatch, *words) == 1
        assert sentence in capsys.readouterr().err
