"""Fragments cut anywhere, by any number of ranks, come back in any pieces; gaps are damage."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.checkpoint import Checkpoint, Fragment, Part, load_latest
from pipeline.checkpoint.files import FileRecord
from pipeline.checkpoint.loading import shares
from pipeline.checkpoint.share import state_text, write_share
from pipeline.checkpoint.store import begin, commit
from pipeline.distributed import World
from tests.checkpoint.saving import STATE, assert_saved, names, no_damage, save, some_tensors

Stored = dict[str, dict[str, Tensor | Fragment]]


def save_as(root: Path, step: int, ranks: list[Stored]) -> Path:
    """One rank after the other writes its share, as they do side by side; then the commit."""
    folder, records = begin(root, step), []
    for rank, parts in enumerate(ranks):
        text = state_text(STATE) if rank == 0 else None
        records += write_share(folder, parts, text, World(rank, len(ranks), rank))
    return commit(folder, step, records)


def cut(tensor: Tensor, places: list[int]) -> list[Fragment]:
    """A tensor in fragments, between places in its flattened values."""
    flat = tensor.reshape(-1)
    edges = [0, *sorted(place % (len(flat) + 1) for place in places), len(flat)]
    return [
        Fragment(flat[start:stop].clone(), start, tuple(tensor.shape))
        for start, stop in pairwise(edges)
    ]


SHAPES = st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.int64])


@settings(deadline=None, max_examples=60, derandomize=True)
@given(data=st.data(), writers=st.integers(1, 5), readers=st.integers(1, 5))
def test_cut_by_some_ranks_and_read_by_others(
    data: st.DataObject, writers: int, readers: int
) -> None:
    """Every rank has one fragment of each tensor, some of them empty, in no order of ranks."""
    whole: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}}
    ranks: list[Stored] = [{"model": {}, "optimizer": {}} for _ in range(writers)]
    for part, tensors in whole.items():
        for number in range(data.draw(st.integers(1, 3))):
            shape = data.draw(SHAPES)
            values = torch.arange(math.prod(shape)).reshape(shape) + 100 * number
            tensors[f"w{number}"] = values.to(data.draw(DTYPES))
            places = data.draw(st.lists(st.integers(0), min_size=writers - 1, max_size=writers - 1))
            owners = data.draw(st.permutations(range(writers)))
            for owner, piece in zip(owners, cut(tensors[f"w{number}"], places), strict=True):
                ranks[owner][part][f"w{number}"] = piece
    ranks[0]["model"]["buffer"] = whole["model"]["buffer"] = torch.tensor([7.0, 8.0])
    ranks[0]["optimizer"]["step"] = whole["optimizer"]["step"] = torch.tensor(3.0)
    with TemporaryDirectory() as folder:
        save_as(Path(folder), 9, ranks)
        found = load_latest(Path(folder), no_damage)
        assert_saved(found, 9, whole)
        assert found is not None
        for part, tensors in whole.items():
            for name, tensor in tensors.items():
                assert found.tensors.shape(part, name) == tensor.shape
                flat, width = tensor.reshape(-1), -(-tensor.numel() // readers)
                for start in range(0, len(flat), width):
                    stop = min(start + width, len(flat))
                    piece = found.tensors.piece(part, name, start, stop)
                    assert torch.equal(piece, flat[start:stop])


WEIGHT = torch.arange(12.0).reshape(3, 4)


def two_ranks(*edges: tuple[int, int]) -> list[Stored]:
    """Rank by rank the values [start, stop) of WEIGHT."""
    flat = WEIGHT.reshape(-1)
    return [{"model": {"w": Fragment(flat[a:b].clone(), a, (3, 4))}} for a, b in edges]


def other_shape() -> list[Stored]:
    ranks = two_ranks((0, 6), (6, 12))
    ranks[1]["model"]["w"] = Fragment(torch.zeros(6), 6, (4, 3))
    return ranks


def other_type() -> list[Stored]:
    ranks = two_ranks((0, 6), (6, 12))
    ranks[1]["model"]["w"] = Fragment(torch.zeros(6, dtype=torch.float64), 6, (3, 4))
    return ranks


WRONG = {
    "gap": (lambda: two_ranks((0, 5), (7, 12)), "values 5 to 6 of model tensor 'w' are in no file"),
    "no beginning": (lambda: two_ranks((2, 5), (5, 12)), "values 0 to 1 of model tensor 'w'"),
    "no end": (lambda: two_ranks((0, 5), (5, 11)), "values 11 to 11 of model tensor 'w'"),
    "overlap": (
        lambda: two_ranks((0, 7), (6, 12)),
        "model-00002-of-00002.safetensors has values of model tensor 'w' that another file has too",
    ),
    "twice": (lambda: two_ranks((0, 12), (0, 12)), "that another file has too"),
    "shapes": (other_shape, "another shape or type of model tensor 'w'"),
    "types": (other_type, "another shape or type of model tensor 'w'"),
}


@pytest.mark.parametrize(("ranks", "what"), WRONG.values(), ids=WRONG)
def test_what_makes_up_no_tensor_is_damage(
    tmp_path: Path, ranks: Callable[[], list[Stored]], what: str
) -> None:
    save(tmp_path, 1)
    save_as(tmp_path, 2, ranks())
    said: list[str] = []
    assert_saved(load_latest(tmp_path, said.append), 1)
    assert "step_000002" in said[0] and what in said[0]


def test_every_shard_is_needed_and_known_by_its_rank(tmp_path: Path) -> None:
    path = save_as(tmp_path, 2, two_ranks((0, 5), (5, 12)))
    assert names(path) == [
        "manifest.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "state.json",
    ]
    (path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model-00002-of-00002.safetensors is missing"):
        load_latest(tmp_path, no_damage)


def test_whole_tensors_come_from_rank_0_only(tmp_path: Path) -> None:
    parts: dict[str, Part] = {"model": {"w": WEIGHT}}
    with pytest.raises(AssertionError, match="whole tensors come from rank 0"):
        write_share(tmp_path, parts, None, World(1, 2, 1))


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    found = load_latest(tmp_path, no_damage)
    assert isinstance(found, Checkpoint)
    size = (path / "model.safetensors").stat().st_size
    with (path / "model.safetensors").open("r+b") as file:
        file.truncate(size // 2)
    with pytest.raises(OSError, match="was cut short after it had been verified"):
        found.tensors.part("model")
    assert found.tensors.names("nothing") == []
    assert found.tensors.names("model") == sorted(some_tensors(1)["model"])


@settings(deadline=None, max_examples=100, derandomize=True)
@given(sizes=st.lists(st.integers(0, 10**9), max_size=40), ranks=st.integers(1, 9))
def test_the_work_of_verifying_is_divided(sizes: list[int], ranks: int) -> None:
    records = [FileRecord(f"{n:02d}", "model", size, "") for n, size in enumerate(sizes)]
    parts = shares(records, ranks)
    assert len(parts) == ranks
    assert sorted(r.name for part in parts for r in part) == [r.name for r in records]
    loads = [sum(record.size for record in part) for part in parts]
    assert max(loads) - min(loads) <= max(sizes, default=0)
