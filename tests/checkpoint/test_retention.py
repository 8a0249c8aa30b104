"""Which checkpoints stay, and how the one that is asked for is found."""

import random
from pathlib import Path

import pytest

from pipeline.checkpoint import load_chosen
from tests.checkpoint.saving import assert_saved, flip, names, no_damage, save


def validated(vra: float | None) -> dict[str, object]:
    """A state.json of weights that were validated, or not."""
    return {"validation": None if vra is None else {"vra_estimate": vra, "epsilon": "36/255"}}


def save_all(root: Path, values: dict[int, float | None], keep: int, keep_best: int) -> list[int]:
    """Save them in order; the steps that are left, in order."""
    for step, value in values.items():
        save(root, step, state=validated(value), keep=keep, keep_best=keep_best)
    return [int(name.removeprefix("step_")) for name in names(root)]


def test_the_newest_k_are_kept(tmp_path: Path) -> None:
    assert save_all(tmp_path, {5: 0.9, 10: None, 15: 0.1, 20: None}, 2, 0) == [15, 20]


def test_the_best_are_kept_beside_the_newest(tmp_path: Path) -> None:
    rising_and_falling = {1: 0.1, 2: 0.6, 3: 0.7, 4: 0.2, 5: None, 6: 0.3}
    assert save_all(tmp_path / "one", rising_and_falling, 1, 1) == [3, 6]
    assert save_all(tmp_path / "two", rising_and_falling, 2, 2) == [2, 3, 5, 6]
    rising = {1: 0.1, 2: 0.2, 3: 0.3}
    assert save_all(tmp_path / "new", rising, 2, 1) == [2, 3], "the best is among the newest"


def test_of_equals_the_newer_is_better(tmp_path: Path) -> None:
    assert save_all(tmp_path, {1: 0.5, 2: 0.5, 3: 0.1}, 1, 1) == [2, 3]


def test_any_course_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    draw = random.Random(4)
    for case in range(12):
        keep, keep_best = draw.randint(1, 3), draw.randint(0, 3)
        values = {step: draw.choice([None, 0.1, 0.2, 0.3, 0.4]) for step in range(1, 9)}
        left = save_all(tmp_path / str(case), values, keep, keep_best)
        rated = [(value, step) for step, value in values.items() if value is not None]
        best = {step for _, step in sorted(rated, reverse=True)[:keep_best]}
        assert set(left) == {8 - i for i in range(keep)} | best, (values, keep, keep_best)


def test_a_damaged_best_is_not_counted(tmp_path: Path) -> None:
    save_all(tmp_path, {1: 0.9, 2: 0.4, 3: 0.3}, 3, 1)
    flip(tmp_path / "step_000001" / "state.json", 30)
    save(tmp_path, 4, state=validated(0.2), keep=1, keep_best=1)
    assert names(tmp_path) == ["step_000002", "step_000004"]


def test_the_one_that_is_asked_for(tmp_path: Path) -> None:
    save_all(tmp_path, {1: 0.1, 2: 0.6, 3: 0.5, 4: None}, 4, 0)
    for which, step in (("newest", 4), ("best", 2), ("3", 3), ("003", 3)):
        found = load_chosen(tmp_path, which, no_damage)
        assert_saved(found, step, state=validated({1: 0.1, 2: 0.6, 3: 0.5, 4: None}[step]))


def test_behind_a_damaged_best_comes_the_next(tmp_path: Path) -> None:
    save_all(tmp_path, {1: 0.1, 2: 0.6, 3: 0.5}, 4, 0)
    flip(tmp_path / "step_000002" / "model.safetensors", -1)
    said: list[str] = []
    assert load_chosen(tmp_path, "best", said.append).step == 3
    flip(tmp_path / "step_000003" / "state.json", -1)
    assert load_chosen(tmp_path, "best", said.append).step == 1
    assert "step_000002: model.safetensors was altered" in said[0]
    assert "step_000003: state.json was altered" in said[1] and "the best" in said[1]


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no checkpoint: train first"):
        load_chosen(tmp_path / "none", "newest", no_damage)
    save_all(tmp_path, {4: None, 5: None}, 4, 0)
    with pytest.raises(ValueError, match=r"was validated.*take newest or a step .4, 5"):
        load_chosen(tmp_path, "best", no_damage)
    with pytest.raises(ValueError, match="no checkpoint of step 6: it has 4, 5"):
        load_chosen(tmp_path, "6", no_damage)
    with pytest.raises(ValueError, match=r"'latest' is neither newest nor best nor a step$"):
        load_chosen(tmp_path, "latest", no_damage)
    with pytest.raises(ValueError, match="did you mean 'newest'"):
        load_chosen(tmp_path, "new", no_damage)
    (tmp_path / "step_000004" / "model.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"step_000004 is damaged \(model.safetensors is missing\)"
    ):
        load_chosen(tmp_path, "4", no_damage)
