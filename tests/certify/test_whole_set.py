"""The whole-set pass: same bytes for any threads and processes, resumable, and its refusals."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.certify import certify, load_network, read_certificate
from pipeline.certify.block_store import BlockStore
from pipeline.certify.bound_store import BoundStore
from pipeline.certify.certificate import sha256_of
from pipeline.certify.verdicts import COLUMNS, read_rows
from pipeline.layers.network import ExportedNetwork
from pipeline.layers.shift import ExportedShift
from pipeline.lipschitz.bound import NormBound
from pipeline.types import Epsilon
from tests.certify.small import ArrayLoader, labelled_images, small_network

ROOT = Path(__file__).parents[2]
EPSILONS = ["2/255", "12/255", 0.1]
COUNT = 700  # blocks of 256, 256 and 188


def make_loader(seed: int = 0, count: int = COUNT) -> ArrayLoader:
    return ArrayLoader(*labelled_images(small_network(0), seed, count))


def rows_without_time(directory: Path) -> list[list[str]]:
    lines = [line.split("\t") for line in (directory / "images.tsv").read_text().splitlines()]
    return [line[:5] + line[6:] for line in lines]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate made by one process with one thread."""
    directory = tmp_path_factory.mktemp("reference")
    certify(small_network(0), make_loader(), EPSILONS, directory, threads=1)
    return directory


def test_the_directory_is_complete_and_consistent(reference: Path) -> None:
    assert {path.name for path in reference.iterdir()} == {
        "certificate.json", "model.safetensors", "config.yaml", "images.tsv", "report.html",
        "curve.png", "histogram.png", "table.csv", "table.tex", "classes.csv", "classes.tex",
    }  # fmt: skip
    tree = json.loads((reference / "certificate.json").read_text())
    lines = (reference / "images.tsv").read_text().splitlines()
    assert lines[0] == "\t".join(COLUMNS)
    assert [line.split("\t")[0] for line in lines[1:]] == [str(i) for i in range(COUNT)]
    verdicts = read_rows(lines[1:])
    assert tree["num_images"] == COUNT and tree["num_classes"] == 3
    assert tree["clean_accuracy"] == verdicts.correct.sum() / COUNT > 0.8
    assert list(tree["vra"]) == tree["epsilons"] == ["2/255", "12/255", "0.1"]
    for text, share in tree["vra"].items():
        assert share == sum(verdicts.radius > Epsilon.parse(text).exact) / COUNT
    assert tree["vra"]["2/255"] > tree["vra"]["0.1"] > 0
    assert tree["weights_sha256"] == sha256_of(reference / "model.safetensors")
    for name, digest in tree["files"].items():
        assert digest == sha256_of(reference / name), name
    product = 1.0
    for layer in tree["layers"]:
        assert set(layer) == {
            "name", "kind", "input_shape", "attributes", "bound", "method", "evidence",
        }  # fmt: skip
        product *= layer["bound"]
    assert product <= tree["lipschitz_bound"] <= product * (1 + 1e-12)
    assert 0.9 * product < tree["lipschitz_unsound"] < product
    assert tree["head"]["max_margin_lipschitz"] >= verdicts.lipschitz.max()
    assert tree["input"] == {
        "shape": [1, 4, 4],
        "space": "v/255, v in 0..255; l2 over all channels and pixels",
    }


def test_the_certificate_reads_back_to_the_same_function(reference: Path) -> None:
    network, again = small_network(0), load_network(reference)
    assert again.records() == network.records() and again.input_shape == network.input_shape
    for name, array in network.tensors().items():
        assert again.tensors()[name].tobytes() == array.tobytes()


def test_three_threads_write_the_same_rows(reference: Path, tmp_path: Path) -> None:
    certify(small_network(0), make_loader(), EPSILONS, tmp_path, threads=3)
    assert rows_without_time(tmp_path) == rows_without_time(reference)


RANK = """
import sys
from pathlib import Path
from pipeline import distributed
from pipeline.certify import certify
from tests.certify.small import small_network
from tests.certify.test_whole_set import EPSILONS, make_loader
loader = make_loader(count=50_000 if sys.argv[2] == "many" else 700)
if sys.argv[2] == "spoil":  # the second block holds a label that the head does not have
    loader.labels[300] = 17
certificate = certify(small_network(0), loader, EPSILONS, Path(sys.argv[1]))
print(loader.asked, certificate.vra)
distributed.stop()
"""


def run_ranks(world: int, *arguments: str | Path) -> list[subprocess.CompletedProcess[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    outputs = [rank.communicate(timeout=300) for rank in ranks]
    return [
        subprocess.CompletedProcess(rank.args, rank.returncode, *output)
        for rank, output in zip(ranks, outputs, strict=True)
    ]


def test_two_processes_write_the_same_rows(reference: Path, tmp_path: Path) -> None:
    first, second = run_ranks(2, tmp_path, "fine")
    assert first.returncode == 0, first.stderr
    assert second.returncode == 0, second.stderr
    assert "[0, 2]" in first.stdout and "[1]" in second.stdout
    assert second.stdout.strip().endswith(str(read_certificate(tmp_path).vra))
    assert rows_without_time(tmp_path) == rows_without_time(reference)
    here, there = (json.loads((d / "certificate.json").read_text()) for d in (tmp_path, reference))
    for changing in ("seconds", "files"):
        del here[changing], there[changing]
    assert here == there


def test_three_processes_write_the_same_rows(reference: Path, tmp_path: Path) -> None:
    """As many as blocks, and one less than layers with weights; every rank has something to do."""
    ranks = run_ranks(3, tmp_path, "fine")
    assert [rank.returncode for rank in ranks] == [0, 0, 0], ranks
    assert [f"[{number}]" in rank.stdout for number, rank in enumerate(ranks)] == [True] * 3
    assert rows_without_time(tmp_path) == rows_without_time(reference)


@pytest.mark.long
def test_fifty_thousand_rows_through_one_two_and_three_processes(tmp_path: Path) -> None:
    """196 blocks, the last one of 80 images; no padding, no row lost, every byte equal."""
    tables = []
    for world in (1, 2, 3):
        for rank in run_ranks(world, tmp_path / str(world), "many"):
            assert rank.returncode == 0, rank.stderr
        tables.append(rows_without_time(tmp_path / str(world)))
    assert len(tables[0]) == 50_001 and tables[0] == tables[1] == tables[2]
    assert [row[0] for row in tables[0][1:]] == [str(number) for number in range(50_000)]


def test_tight_bounds_are_another_certificate(reference: Path, tmp_path: Path) -> None:
    shutil.copytree(reference, tmp_path / "c")
    with pytest.raises(ValueError, match="with other bounds"):
        certify(small_network(0), make_loader(), EPSILONS, tmp_path / "c", tight=True)
    tight = certify(small_network(0), make_loader(), EPSILONS, tmp_path / "tight", tight=True)
    usual = read_certificate(reference)
    assert tight.tight and not usual.tight
    assert tight.lipschitz_unsound < tight.lipschitz_bound < usual.lipschitz_bound
    assert [layer["method"] for layer in tight.layers if layer["name"] == "stem"] == [
        "whole-cholesky"
    ]
    assert all(tight.vra[text] >= usual.vra[text] for text in usual.vra)


def test_an_error_on_one_rank_ends_both(tmp_path: Path) -> None:
    first, second = run_ranks(2, tmp_path, "spoil")
    assert first.returncode != 0 and second.returncode != 0
    assert "label 17 is outside the network's 3 classes" in second.stderr
    assert "rank 1 failed: ValueError: label 17" in first.stderr
    assert not (tmp_path / "certificate.json").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.certify import certify
from tests.certify.small import ArrayLoader, small_network
from tests.certify.test_whole_set import EPSILONS, make_loader
loader = make_loader()
blocks = loader.blocks
def kill_at_the_third(indices):
    for number, batch in zip(indices, blocks(indices)):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch
loader.blocks = kill_at_the_third
certify(small_network(0), loader, EPSILONS, Path(sys.argv[1]), threads=1)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a SIGKILL leaves of a certification of network 0 when it asks for the third block."""
    directory = tmp_path_factory.mktemp("killed")
    done = subprocess.run([sys.executable, "-c", KILLED, str(directory)], cwd=ROOT, timeout=300)
    assert done.returncode == -9
    assert (directory / "blocks" / "000000.tsv").exists()
    assert not (directory / "certificate.json").exists()
    return directory


@pytest.fixture
def half_way(killed: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(killed, tmp_path / "copy"))


def test_a_killed_certification_goes_on(reference: Path, half_way: Path) -> None:
    (half_way / "blocks" / "000001.tsv.tmp").write_text("half a blo")
    loader = make_loader()
    certify(small_network(0), loader, EPSILONS, half_way, threads=1)
    assert 0 not in loader.asked and 2 in loader.asked
    assert rows_without_time(half_way) == rows_without_time(reference)
    assert not (half_way / "blocks").exists() and not (half_way / "bounds").exists()


class AskedToLeave(BaseException):
    """As StopRequestedError."""


def test_asked_to_leave_at_every_moment_in_turn_it_does_nothing_twice(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    for store in (BoundStore, BlockStore):
        write = store.write

        def note(self, number, *content, write=write) -> None:
            written.append(self.path(number).name)
            write(self, number, *content)

        monkeypatch.setattr(store, "write", note)

    moments, calls = 0, 0

    def leave_if_asked() -> None:
        nonlocal calls
        calls += 1
        if calls > moments:
            raise AskedToLeave

    network = small_network(0)
    while True:
        try:
            certify(
                network, make_loader(), EPSILONS, tmp_path, threads=1, leave_if_asked=leave_if_asked
            )
            break
        except AskedToLeave:
            moments, calls = moments + 1, 0
    layers, blocks = len(network.layers), make_loader().num_blocks
    assert moments >= 2 * layers, "it could leave between the layers, twice"
    expected = [f"{n:04d}.json" for n in range(layers)] + [f"{n:06d}.tsv" for n in range(blocks)]
    assert sorted(written) == sorted(expected)
    assert rows_without_time(tmp_path) == rows_without_time(reference)
    for name, value in read_certificate(reference).__dict__.items():
        if name in ("layers", "lipschitz_bound", "vra", "vra_unsound"):
            assert getattr(read_certificate(tmp_path), name) == value


@pytest.mark.parametrize("damage", ["{", '{"format": "certline bound 1"}', ""])
def test_a_damaged_or_foreign_bound_is_proved_again(tmp_path: Path, damage: str) -> None:
    store, bound = BoundStore(tmp_path, "mine"), NormBound(1.25, "exact", {"slack": 0.1 + 0.2})
    store.write(3, bound)
    assert store.read(3) == bound and BoundStore(tmp_path, "other").read(3) is None
    store.path(3).write_text(damage)
    assert store.read(3) is None
    store.write(4, NormBound(float("inf"), "exact"))
    assert store.read(4) is None


def test_blocks_of_another_network_are_not_used(half_way: Path) -> None:
    loader = make_loader()
    certificate = certify(small_network(1), loader, EPSILONS, half_way, threads=1)
    assert loader.asked == [0, 1, 2]
    assert certificate.weights_sha256 == sha256_of(half_way / "model.safetensors")


def moved(center: float) -> ExportedNetwork:
    """Network 0 with another center: the same tensors, another function."""
    network = small_network(0)
    shift = ExportedShift("shift", network.input_shape, center)
    return replace(network, layers=(shift, *network.layers[1:]))


def test_blocks_of_the_same_tensors_in_another_function_are_not_used(half_way: Path) -> None:
    loader = make_loader()
    certificate = certify(moved(0.5), loader, EPSILONS, half_way, threads=1)
    assert loader.asked == [0, 1, 2]
    assert certificate.layers[0]["attributes"] == {"center": 0.5}


def test_a_certificate_of_the_same_tensors_in_another_function_is_not_returned(
    reference: Path,
) -> None:
    with pytest.raises(ValueError, match="certificate of another network"):
        certify(moved(0.5), make_loader(), EPSILONS, reference)


def test_blocks_of_another_data_set_are_not_used(half_way: Path) -> None:
    loader = make_loader(seed=1)
    certify(small_network(0), loader, EPSILONS, half_way, threads=1)
    assert loader.asked == [0, 1, 2]


def test_a_damaged_block_is_computed_again(reference: Path, half_way: Path) -> None:
    block = half_way / "blocks" / "000000.tsv"
    block.write_text("\n".join(block.read_text().splitlines()[:-1]) + "\n")
    loader = make_loader()
    certify(small_network(0), loader, EPSILONS, half_way, threads=1)
    assert loader.asked[0] == 0
    assert rows_without_time(half_way) == rows_without_time(reference)


def test_what_is_certified_already_is_not_done_again(reference: Path) -> None:
    before = (reference / "certificate.json").stat().st_mtime_ns
    loader = make_loader()
    certificate = certify(small_network(0), loader, EPSILONS, reference)
    assert loader.asked == [] and certificate == read_certificate(reference)
    assert (reference / "certificate.json").stat().st_mtime_ns == before


def test_another_certificate_is_replaced_only_by_force(tmp_path: Path) -> None:
    network = small_network(0)
    certify(network, make_loader(), ["36/255"], tmp_path)
    with pytest.raises(ValueError, match=r"certificate of another network.*--force"):
        certify(network, make_loader(), ["0.5"], tmp_path)
    assert read_certificate(tmp_path).epsilons == ["36/255"]
    certify(network, make_loader(), ["0.5"], tmp_path, force=True)
    assert read_certificate(tmp_path).epsilons == ["0.5"]


def test_an_unfinished_certificate_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unfinished"):
        read_certificate(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"exact": False}, "does not hold exact pixels"),
        ({"image_shape": (3, 32, 32)}, "images of 3×32×32, the model takes 1×4×4"),
        ({"num_classes": 10}, "has 10 classes, the model's head has 3"),
        ({"num_samples": 0}, "holds no images"),
    ],
)
def test_data_that_do_not_fit_are_refused(change, words: str, tmp_path: Path) -> None:
    loader = make_loader()
    loader.info = replace(loader.info, **change)
    with pytest.raises(ValueError, match=words):
        certify(small_network(0), loader, EPSILONS, tmp_path)
    assert not any(tmp_path.iterdir())


def test_no_epsilon_and_bad_epsilons_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        certify(small_network(0), make_loader(), [], tmp_path)
    with pytest.raises(ValueError, match="above 0"):
        certify(small_network(0), make_loader(), ["-1"], tmp_path)


def test_a_loader_that_pads_is_caught(tmp_path: Path) -> None:
    loader = make_loader()
    loader.info = replace(loader.info, num_samples=COUNT - 1)
    with pytest.raises(ValueError, match="neither pad, drop nor reorder"):
        certify(small_network(0), loader, EPSILONS, tmp_path)


def test_the_number_of_threads_of_the_caller_is_restored(tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    certify(small_network(0), make_loader(), ["1"], tmp_path, threads=2)
    assert torch.get_num_threads() == before
