"""What is true of two ranks for free, since a + b = b + a, and of three only on purpose."""

from pathlib import Path

import pytest

from tests.distributed.processes import Ranks

RESUMED = """
import copy, hashlib
import torch
from pipeline import config, distributed
from pipeline.models import build_model
from pipeline.objectives import build_objective
from pipeline.training.build_engine import build_engine
from pipeline.types import Batch

world = distributed.start()
settings = config.parse(
    {"name": "x", "model": {"name": "liresnet", "num_classes": 10, "image_size": 32}}
)
emma = build_objective("emma")

def begin():
    torch.manual_seed(0)
    network = build_model("liresnet", 10, 32, 3, depth=2, width=16, features=32)
    return build_engine(network, settings)

def train(engine, first, last):
    for step in range(first, last):
        draw = torch.Generator().manual_seed(100 * step + world.rank)
        images = torch.rand(4, 3, 32, 32, generator=draw)
        nothing = torch.zeros(4, dtype=torch.bool)
        batch = Batch(images, torch.arange(4), torch.arange(4), nothing)
        engine.module.train()
        with engine.micro_batch(True):
            losses = emma(engine.forward, batch, 0.1)
            engine.backward(losses.per_sample.sum() / 12)
        engine.gradient_norm()
        engine.step(1e-2, 1.0)

def digest(engine):
    weights = [value.detach().numpy().tobytes() for value in engine.module.parameters()]
    return hashlib.sha256(b"".join(weights)).hexdigest()

engine = begin()
train(engine, 0, 3)
saved = copy.deepcopy(engine.module.state_dict())
optimizer = copy.deepcopy(engine._optimizer.state_dict())
train(engine, 3, 6)
resumed = begin()
resumed.module.load_state_dict(saved)
resumed._optimizer.load_state_dict(optimizer)
train(resumed, 3, 6)
assert digest(resumed) == digest(engine), "a resumed run has the bits of an undisturbed one"
distributed.stop()
"""

ONE_LAYER = """
import torch
from pipeline import distributed
from pipeline.layers.dense import Dense
from pipeline.lipschitz.power_iteration import estimate_norms

world = distributed.start(collective_timeout=30)
torch.manual_seed(0)
layer = Dense(6, 5)
found = estimate_norms([layer.norm_request()], iterations=50, update=True)
assert torch.allclose(found[0], torch.linalg.matrix_norm(layer.weight, 2), rtol=1e-4)
everywhere = distributed.gather_objects(layer.norm_request().vector.tolist())
assert all(vector == everywhere[0] for vector in everywhere)
distributed.stop()
"""


@pytest.mark.parametrize("script", [RESUMED, ONE_LAYER], ids=["resumed DDP", "one layer"])
def test_three_ranks(script: str, tmp_path: Path) -> None:
    with Ranks(["-c", script], 3, tmp_path) as ranks:
        assert ranks.statuses() == [0, 0, 0], ranks.outputs()
