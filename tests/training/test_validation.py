"""Validation: exact counts on any number of ranks, and strict comparisons."""

import pytest
import torch

from pipeline.models import build_model
from pipeline.training.callbacks import EpochRecord
from pipeline.training.validation import ValidationCallback, validate
from pipeline.types import Epsilon, Prediction
from tests.models.counting import iterations_asked
from tests.training.toy import ToyBlocks, toy_engine, toy_loop

EPSILON = 0.1


def test_against_a_count_by_hand() -> None:
    engine, blocks = toy_engine(), ToyBlocks(70, 16)
    toy_loop(engine).run()
    buffers = {name: buffer.clone() for name, buffer in engine.module.named_buffers()}
    result = validate(engine, blocks, EPSILON)
    assert engine.module.training
    assert all(torch.equal(buffers[n], b) for n, b in engine.module.named_buffers())
    engine.module.eval()
    with torch.no_grad():
        prediction = engine.module(blocks.images.float() / 255)
    clean = robust = 0
    for logits, label in zip(prediction.logits.tolist(), blocks.labels.tolist(), strict=True):
        margins = {i: logits[label] - logits[i] for i in range(4) if i != label}
        steep = prediction.margin_lipschitz[label].tolist()
        clean += all(margin > 0 for margin in margins.values())
        robust += all(margin > EPSILON * steep[i] for i, margin in margins.items())
    assert result.num_images == 70
    assert (result.clean_accuracy, result.vra_estimate) == (clean / 70, robust / 70)
    assert 0 < robust < clean, "the case is a real one"


def test_steps_of_a_validation_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    sizes = {"depth": 1, "channels": 4, "dense_depth": 1, "features": 8}
    engine, blocks = toy_engine(model=build_model("cpl", 4, 8, 1, **sizes)), ToyBlocks(70, 16)
    counts = iterations_asked(monkeypatch)
    validate(engine, blocks, EPSILON)
    validate(engine, blocks, EPSILON)  # nothing is kept from one to the next
    assert counts == [100, 100] and blocks.num_blocks > 1


class Fixed:
    """An engine whose model says the same of every image."""

    def __init__(self, logits: list[float], lipschitz: float) -> None:
        self.world, self.device = toy_engine().world, torch.device("cpu")
        self.module = torch.nn.Identity()
        table = lipschitz * (1 - torch.eye(len(logits)))
        self.prediction = (torch.tensor(logits), table)

    def forward(self, images: torch.Tensor) -> Prediction:
        logits, table = self.prediction
        return Prediction(logits.expand(len(images), -1), table, torch.ones(1))


@pytest.mark.parametrize(
    ("logits", "clean", "robust"),
    [
        ([2.0, 1.0, 1.0, 0.0], 1.0, 0.0),  # margin 1.0 = 0.5 · 2.0: not strictly above
        ([2.0, 1.0 - 2**-20, 0.0, 0.0], 1.0, 1.0),
        ([2.0, 2.0, 0.0, 0.0], 0.0, 0.0),  # a tie
        ([float("nan"), 1.0, 0.0, 0.0], 0.0, 0.0),
        ([0.0, 1.0, 0.0, 0.0], 0.0, 0.0),
    ],
)
def test_comparisons_are_strict(logits: list[float], clean: float, robust: float) -> None:
    blocks = ToyBlocks(4, 2)
    blocks.labels = torch.zeros(4, dtype=torch.int64)
    result = validate(Fixed(logits, 2.0), blocks, 0.5)
    assert (result.clean_accuracy, result.vra_estimate) == (clean, robust)


@pytest.mark.parametrize(("every", "epochs"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (0, [4])])
def test_when_it_validates(every: int, epochs: list[int]) -> None:
    validation = ValidationCallback(toy_engine(), ToyBlocks(8, 8), Epsilon.parse("36/255"), every)
    found = []
    for epoch in range(5):
        record = EpochRecord(epoch, epoch, last=epoch == 4)
        validation.on_epoch_end(record)
        if record.numbers:
            assert record.numbers["validation"]["epsilon"] == "36/255"
            found.append(epoch)
    assert found == epochs
