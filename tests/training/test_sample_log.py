"""The log of samples: cut back with the weights, and compared with the order."""

from pathlib import Path

import pytest

from pipeline.data.order import Order
from pipeline.training.sample_log import SampleLog, verify_samples
from tests.training.toy import BATCH, SAMPLES, STEPS_PER_EPOCH, toy_loop

ORDER = Order(SAMPLES, BATCH, seed=3)
STEPS = 5 * STEPS_PER_EPOCH


def rank(run: Path, number: int) -> Path:
    return run / "samples" / f"rank_{number:04d}.tsv"


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_whole_run_used_every_sample_once(tmp_path: Path, accumulation: int) -> None:
    toy_loop(callbacks=[SampleLog(tmp_path)], accumulation=accumulation).run()
    verify_samples(tmp_path, ORDER, STEPS)
    assert len(rank(tmp_path, 0).read_text().splitlines()) == STEPS


def test_a_run_goes_on_behind_its_checkpoint(tmp_path: Path) -> None:
    toy_loop(callbacks=[SampleLog(tmp_path)], max_steps=7).run()
    verify_samples(tmp_path, ORDER, 7)
    with rank(tmp_path, 0).open("a") as file:
        file.write("8\t1 2")  # torn by a kill
    # A rank that there will not be any longer, which had got further than the checkpoint.
    lines = rank(tmp_path, 0).read_text().splitlines()
    rank(tmp_path, 1).write_text(f"1\t\n{lines[5]}\n{lines[6]}\n")
    toy_loop(callbacks=[SampleLog(tmp_path)]).run(5)
    assert rank(tmp_path, 1).read_text() == "1\t\n"
    verify_samples(tmp_path, ORDER, STEPS)


def test_what_is_lost_or_seen_twice_is_found(tmp_path: Path) -> None:
    toy_loop(callbacks=[SampleLog(tmp_path)], max_steps=6).run()
    lines = rank(tmp_path, 0).read_text().splitlines(keepends=True)
    with pytest.raises(ValueError, match="has step 6, which is not one of 5"):
        verify_samples(tmp_path, ORDER, 5)
    with pytest.raises(ValueError, match="step 7 used 0 samples instead of 16"):
        verify_samples(tmp_path, ORDER, 7)
    for damaged in (
        [*lines[:2], *lines[3:]],
        [*lines[:3], lines[2], *lines[3:]],
        [*lines[:2], lines[3].replace("4\t", "3\t"), lines[2].replace("3\t", "4\t"), *lines[4:]],
    ):
        rank(tmp_path, 0).write_text("".join(damaged))
        with pytest.raises(ValueError, match=r"step 3 used \d+ samples instead of 16"):
            verify_samples(tmp_path, ORDER, 6)
