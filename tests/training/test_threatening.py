"""Figure 2b: the share of images whose threatening class changed."""

from types import SimpleNamespace

import torch

from pipeline.training.callbacks import EpochRecord
from pipeline.training.threatening import ThreateningClasses
from pipeline.types import Batch
from tests.training.toy import toy_loop

CPU = torch.device("cpu")
KEY = "threatening_class_changed"


def show(memory: ThreateningClasses, classes: dict[int, int], generated: bool = False) -> None:
    """One micro-batch in which image `id` has the threatening class `classes[id]`."""
    ids = torch.tensor(list(classes))
    batch = Batch(torch.zeros(len(ids), 1, 8, 8), ids, ids, torch.full((len(ids),), generated))
    memory.on_micro_batch(batch, SimpleNamespace(threatening=torch.tensor(list(classes.values()))))


def end_epoch(memory: ThreateningClasses) -> float | None:
    record = EpochRecord(0, 0, last=False)
    memory.on_epoch_end(record)
    return record.numbers[KEY]


def test_only_images_seen_in_both_epochs_count() -> None:
    memory = ThreateningClasses(5, CPU)
    show(memory, {0: 2, 1: 2})
    show(memory, {2: 0, 3: 1})
    assert end_epoch(memory) is None
    show(memory, {4: 1, 3: 1, 2: 1})
    show(memory, {0: 3})
    assert end_epoch(memory) == 2 / 3
    show(memory, {1: 3})  # seen two epochs ago, not in the last
    assert end_epoch(memory) is None


def test_generated_images_are_no_images_of_ours() -> None:
    memory = ThreateningClasses(3, CPU)
    show(memory, {0: 1, 1: 1, 2: 1})
    end_epoch(memory)
    show(memory, {0: 1, 1: 1, 2: 1})
    show(memory, {0: 2, 1000: 2}, generated=True)
    assert end_epoch(memory) == 0.0


def test_memory_goes_through_a_checkpoint() -> None:
    memory = ThreateningClasses(4, CPU)
    show(memory, {0: 1, 1: 1, 2: 1, 3: 1})
    end_epoch(memory)
    show(memory, {0: 2, 1: 1})
    restored = ThreateningClasses(4, CPU)
    restored.load_tensors({name: t.clone() for name, t in memory.tensors().items()})
    for each in (memory, restored):
        show(each, {2: 3, 3: 1})
        assert end_epoch(each) == 0.5


class Shares(ThreateningClasses):
    def __init__(self, size: int) -> None:
        super().__init__(size, CPU)
        self.shares: list[float | None] = []

    def on_epoch_end(self, record: EpochRecord) -> None:
        super().on_epoch_end(record)
        self.shares.append(record.numbers[KEY])


def test_in_training_it_is_a_share() -> None:
    shares = Shares(70)
    toy_loop(callbacks=[shares]).run()
    assert shares.shares[0] is None
    assert all(0 <= share <= 1 for share in shares.shares[1:])
    assert any(shares.shares[1:])
