"""Training on mixed batches: numbers of the two parts apart, the sample log, going on."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import config, run
from pipeline.config import RunConfig
from pipeline.data.order import GeneratedOrder, Order
from pipeline.objectives import build_objective
from pipeline.training.loop import Loop
from pipeline.training.sample_log import SampleLog, verify_samples
from pipeline.types import Batch
from tests.distributed.processes import Ranks
from tests.training.toy import (
    SAMPLES,
    Recorder,
    ToyLoader,
    toy_engine,
    toy_plan,
)

GENERATED = 31
MIXED = 12  # 4 real and 8 generated images a step


class MixedToy(ToyLoader):
    """Toy images, two of three "generated": the same patterns, darker."""

    def __init__(self, batch_size: int = MIXED) -> None:
        super().__init__(toy_engine().world, batch_size // 3)
        self.made = GeneratedOrder(GENERATED, batch_size // 3 * 2, 3, self.steps_per_epoch)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        made = self.made.epoch(epoch, start_step)["sample"].astype("int64")
        for real, ids in zip(super().epoch(epoch, start_step), made, strict=True):
            ids = torch.from_numpy(ids)
            parts = zip(
                real.fields(),
                (self.images[ids] // 2, self.labels[ids], ids + SAMPLES, torch.ones(8).bool()),
                strict=True,
            )
            groups = [
                torch.cat([a.unflatten(0, (-1, 1)), b.unflatten(0, (-1, 2))], 1) for a, b in parts
            ]
            yield Batch(*(group.flatten(0, 1) for group in groups))


def mixed_loop(callbacks: list, **plan: object) -> Loop:
    plan = {"batch_size": MIXED, "generated": 8, "epochs": 1, **plan}
    return Loop(toy_engine(), build_objective("emma"), MixedToy(), toy_plan(**plan), callbacks)


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_the_parts_have_numbers_of_their_own(accumulation: int) -> None:
    """Against the means over the images of the first step, one part after the other."""
    recorder, together = Recorder(), Recorder()
    mixed_loop([recorder], max_steps=1, accumulation=accumulation).run()
    mixed_loop([together], max_steps=1, accumulation=accumulation, generated=0).run()
    (record,), (without,) = recorder.records, together.records
    assert without.by_origin == {}
    assert record.metrics == without.metrics and record.loss == without.loss
    engine, objective = toy_engine(), build_objective("emma")
    engine.module.train()
    first = next(MixedToy().epoch(0)).to(torch.device("cpu"))
    losses = objective(engine.forward, first, 0.0)
    for origin, chosen in (("real", ~first.is_generated), ("generated", first.is_generated)):
        found = record.by_origin[origin]
        assert found.keys() == {"loss", *losses.metrics}
        for name, values in {"loss": losses.per_sample, **losses.metrics}.items():
            mean = float(values.detach().double()[chosen].mean())
            assert found[name] == pytest.approx(mean, rel=1e-5, abs=1e-6), name
    assert record.by_origin["real"]["loss"] != record.by_origin["generated"]["loss"]
    total = 4 * record.by_origin["real"]["loss"] + 8 * record.by_origin["generated"]["loss"]
    assert total / 12 == pytest.approx(record.loss, rel=1e-12)


def test_the_log_tells_the_parts_apart(tmp_path: Path) -> None:
    mixed_loop([SampleLog(tmp_path)], accumulation=2).run()
    loader = MixedToy()
    order, steps = loader.order, loader.steps_per_epoch
    verify_samples(tmp_path, order, steps, loader.made)
    path = tmp_path / "samples" / "rank_0000.tsv"
    lines = path.read_text().splitlines()
    for line, real, made in zip(
        lines, order.epoch(0)["sample"], loader.made.epoch(0)["sample"], strict=True
    ):
        _, ids, others = line.split("\t")
        assert sorted(map(int, ids.split())) == sorted(real)
        assert sorted(int(i) - SAMPLES for i in others.split()) == sorted(made)
    swapped = lines[3].split("\t")
    swapped[2] = swapped[2].replace(swapped[2].split()[0], str(SAMPLES + GENERATED), 1)
    path.write_text("\n".join([*lines[:3], "\t".join(swapped), *lines[4:]]) + "\n")
    with pytest.raises(ValueError, match="step 4 used 8 generated samples instead of 8; not used"):
        verify_samples(tmp_path, order, steps, loader.made)
    path.write_text("\n".join([*lines[:3], lines[3].rsplit("\t", 1)[0], *lines[4:]]) + "\n")
    with pytest.raises(ValueError, match="step 4 used 0 generated samples instead of 8"):
        verify_samples(tmp_path, order, steps, loader.made)


def settings(output: Path, **generated: object) -> RunConfig:
    """Digits and noisy copies of them, half and half; 16 steps an epoch of 60 real images."""
    return config.parse(
        {
            "name": "mixed",
            "output": str(output),
            "seed": 3,
            "data": {
                "train": "digits", "val": "digits", "workers": 1,
                "augmentation": {"crop_padding": 1},
                "generated": {"path": f"npz:{output / 'made.npz'}", **generated},
            },
            "model": {
                "name": "liresnet", "num_classes": 10, "image_size": 8, "in_channels": 1,
                "depth": 1, "width": 4, "features": 8,
            },
            "optimizer": {"lr": 0.01, "clip_norm": 1.0},
            "training": {"epochs": 2, "batch_size": 180, "validate_every": 0, "log_samples": True},
            "checkpoint": {"every_steps": 4, "keep": 20},
            "certification": {"epsilons": ["36/255"]},
        }
    )  # fmt: skip


def make(folder: Path, seed: int = 0, count: int = 400) -> None:
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (count, 8, 8), dtype=np.uint8)
    np.savez(folder / "made.npz", image=images, label=np.arange(count) % 10)


def step_rows(directory: Path) -> list[dict]:
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("seconds", None)
        row.pop("images_per_second", None)
    return [row for row in rows if row["kind"] == "step"]


def test_a_mixed_run_from_end_to_end(tmp_path: Path) -> None:
    """Trained, certified; what it used named; gone on with to the same bits; a changed set not."""
    make(tmp_path)
    chosen = settings(tmp_path)
    assert run.main(chosen).finished
    rows = step_rows(chosen.directory)
    assert len(rows) == 30  # 1437 // 90 = 15 an epoch
    for row in rows:
        assert row["real"].keys() == row["generated"].keys() >= {"loss", "clean_accuracy", "robust"}
        assert row["loss"] == pytest.approx((row["real"]["loss"] + row["generated"]["loss"]) / 2)
    assert any(row["real"]["robust"] != row["generated"]["robust"] for row in rows)
    verify_samples(
        chosen.directory, Order(1437, 90, 3), 30, GeneratedOrder(400, 90, 3, steps_per_epoch=15)
    )
    recorded = config.load(chosen.directory / "config.yaml").data.generated
    assert recorded is not None and recorded.sha256 is not None and len(recorded.sha256) == 64
    certificate = chosen.directory / "certificate"
    assert config.load(certificate / "config.yaml").data.generated == recorded
    report = (certificate / "report.html").read_text()
    assert recorded.sha256 in report and "made.npz" in report and "1 : 1" in report

    weights = (chosen.directory / "checkpoints/step_000030/model.safetensors").read_bytes()
    for step in (15, 16, 20, 24, 28, 30):
        folder = chosen.directory / f"checkpoints/step_{step:06d}"
        folder.rename(tmp_path / folder.name)
    assert run.main(chosen).finished  # on from step 12, inside the first epoch
    assert step_rows(chosen.directory) == rows
    again = (chosen.directory / "checkpoints/step_000030/model.safetensors").read_bytes()
    assert again == weights

    make(tmp_path, seed=1)
    with pytest.raises(
        ValueError, match=r"made\.npz is no longer the set that the run in .*sha256"
    ):
        run.main(chosen)
    pinned = settings(
        tmp_path / "other", path=f"npz:{tmp_path / 'made.npz'}", sha256=recorded.sha256
    )
    with pytest.raises(ValueError, match=r"sha256 is .*: it is another set"):
        run.main(pinned)


CHAIN = """
import sys
from pathlib import Path
from pipeline import distributed
from pipeline.config import AugmentationConfig, DataConfig, GeneratedConfig
from pipeline.data.loader import open_train_loader
from pipeline.training.loop import Loop, Plan
from pipeline.training.sample_log import SampleLog
from pipeline.objectives import build_objective
from tests.training.toy import toy_engine, toy_plan

folder, begun, stop = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
world = distributed.start()
engine = toy_engine()
data = DataConfig(train=f"npz:{folder / 'real.npz'}", workers=1, backend="memory",
                  generated=GeneratedConfig(path=f"npz:{folder / 'made.npz'}", ratio="1:3"))
loader = open_train_loader(data, 8, 96, 3, world)
plan = toy_plan(batch_size=96, accumulation=2, generated=72, max_steps=stop, epochs=4)
loop = Loop(engine, build_objective("emma"), loader, plan, [SampleLog(folder)])
assert loop.run(begun) == stop
loader.close()
distributed.stop()
"""


def test_every_image_once_on_four_then_two_then_three_processes(tmp_path: Path) -> None:
    """From the log: real images once an epoch, generated ones once a pass, whoever read them."""
    draw = np.random.default_rng(0)
    for name, count in (("real", 100), ("made", 130)):
        images = draw.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", image=images, label=np.arange(count) % 4)
    for processes, begun, stop in ((4, 0, 6), (2, 6, 9), (3, 9, 16)):  # 4 steps an epoch
        words = ["-c", CHAIN, str(tmp_path), str(begun), str(stop)]
        with Ranks(words, processes, tmp_path) as ranks:
            assert ranks.statuses() == [0] * processes, ranks.outputs()
    verify_samples(tmp_path, Order(100, 24, 3), 16, GeneratedOrder(130, 72, 3, 4))
    # The same once more without the order: by counting.
    used: dict[int, tuple[list[int], list[int]]] = {step: ([], []) for step in range(1, 17)}
    for path in (tmp_path / "samples").glob("rank_*.tsv"):
        for line in path.read_text().splitlines():
            step, *columns = line.split("\t")
            for ids, column in zip(used[int(step)], columns, strict=True):
                ids += map(int, column.split())
    for epoch in range(4):
        real = [i for step in range(4 * epoch + 1, 4 * epoch + 5) for i in used[step][0]]
        assert len(real) == len(set(real)) == 96 and set(real) <= set(range(100))
    made = [i for step in used for i in used[step][1]]
    counts = np.bincount(np.array(made) - 100, minlength=130)
    assert len(made) == 16 * 72 and set(counts) == {8, 9}, "8 passes, and a part of the ninth"
