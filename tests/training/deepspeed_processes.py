"""What real processes must do under DeepSpeed; `test_deepspeed_engine.py` launches them.

`python -m tests.training.deepspeed_processes CALLS`, once a rank: CALLS is JSON, a list of
[name of a function below, keyword arguments]. Every function runs on all ranks and asserts on all;
rank 0 prints the result of each as a line of JSON.
"""

import json
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor

from pipeline import config as configs
from pipeline import distributed
from pipeline.checkpoint.fragments import Fragment, Part, WholeState
from pipeline.config import RunConfig
from pipeline.distributed import current_world, gather_objects
from pipeline.models import build_model
from pipeline.objectives import build_objective
from pipeline.training.build_engine import build_engine
from pipeline.training.determinism import make_deterministic
from pipeline.training.engine import Engine
from pipeline.training.guards import NonFiniteError
from pipeline.training.loop import Loop, Plan
from tests.training.toy import Recorder, ToyLoader

BATCH = 48  # divides by 2, 3 and 4 processes with two micro-batches each
STEPS = 20
DIGITS = load_digits()  # 0 … 16; through our loader, each process would compile its kernels
CLIP_NORM = 1.5  # above 1, at which DeepSpeed would clip if it were not told otherwise
KINDS = ["accelerate", "0", "1", "2", "3"]


def config_of(kind: str, precision: str = "fp32") -> RunConfig:
    """Of an engine: "accelerate", or a stage of ZeRO."""
    engine: dict[str, Any] = {"engine": kind}
    if kind != "accelerate":
        engine = {"engine": "deepspeed", "deepspeed": {"stage": int(kind)}}
    return configs.parse({
        "name": "toy",
        **engine,
        "model": {"name": "liresnet", "num_classes": 10, "image_size": 8, "in_channels": 1,
                  "depth": 3, "width": 16},
        "training": {"precision": precision},
    })  # fmt: skip


def engine_of(kind: str, precision: str = "fp32") -> Engine:
    config = config_of(kind, precision)
    torch.manual_seed(1)
    model = build_model("liresnet", 10, 8, in_channels=1, **config.model.options)
    return build_engine(model, config)


def train(
    engine: Engine, begin: int = 0, end: int = STEPS, objective: Any = None
) -> list[list[float]]:
    """Steps after `begin` up to `end`: loss, gradient norm, K, clean accuracy of each."""
    recorder = Recorder()
    loader = ToyLoader(engine.world, BATCH, len(DIGITS.target))
    loader.images = torch.from_numpy(DIGITS.images * 15.9375).to(torch.uint8)[:, None]
    loader.labels = torch.from_numpy(DIGITS.target)
    plan = Plan(
        epochs=1,
        batch_size=BATCH,
        accumulation=2,
        # At 5e-3 differences by rounding have been seen to grow to 1e-3 within the 20 steps.
        learning_rate=lambda step: 2e-3,
        epsilon=lambda step: 0.005 * step,
        clip_norm=CLIP_NORM,
        max_steps=end,
    )
    loop = Loop(engine, objective or build_objective("emma"), loader, plan, [recorder])
    loop.run(begin)
    rows = [[r.loss, r.gradient_norm, r.lipschitz, r.metrics["correct"]] for r in recorder.records]
    assert gather_objects(rows) == [rows] * engine.world.size, "every rank has the same numbers"
    return rows


def whole(state: dict[str, Part]) -> dict[str, dict[str, Tensor]]:
    """All ranks' parts of a state, put together on every rank."""
    merged: dict[str, dict[str, Tensor]] = {}
    filled: dict[tuple[str, str], int] = {}
    for of_rank in gather_objects(state):
        for part, tensors in of_rank.items():
            here = merged.setdefault(part, {})
            for name, value in tensors.items():
                if isinstance(value, Tensor):
                    assert name not in here, f"{name} is saved twice"
                    here[name] = value
                    continue
                assert isinstance(value, Fragment)
                flat = here.setdefault(name, torch.full(value.shape, torch.nan)).view(-1)
                assert flat[value.start : value.stop].isnan().all(), f"{name} overlaps"
                flat[value.start : value.stop] = value.values
                filled[part, name] = filled.get((part, name), 0) + len(value.values)
    for (part, name), count in filled.items():
        assert count == merged[part][name].numel(), f"{name} has holes"
    return merged


def same(one: dict[str, dict[str, Tensor]], other: dict[str, dict[str, Tensor]]) -> None:
    """Equal to the bit, with the same names."""
    assert one.keys() == other.keys()
    for part, tensors in one.items():
        assert tensors.keys() == other[part].keys()
        for name, value in tensors.items():
            there = other[part][name]
            assert value.dtype == there.dtype and torch.equal(value, there), (part, name)


def same_buffers(engine: Engine) -> None:
    """The power-iteration vectors are equal on all ranks, and not those of the beginning."""
    mine = {name: value.cpu().numpy().tobytes() for name, value in engine.module.named_buffers()}
    assert mine and gather_objects(mine) == [mine] * engine.world.size


def steps(kind: str, precision: str = "fp32") -> Any:
    """Train; the numbers of each step."""
    engine = engine_of(kind, precision)
    rows = train(engine)
    same_buffers(engine)
    state = whole(engine.state())
    assert all(value.dtype == torch.float32 for part in state.values() for value in part.values())
    assert torch.equal(state["optimizer"]["head.weight/step"], torch.tensor(float(STEPS)))
    # Evaluation and export are in float32, of all weights, on every rank, and change nothing.
    plain = engine_of("accelerate")
    plain.load_state(WholeState(state))
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = images.to(engine.device)
    for each in (engine, plain):
        each.module.eval()
    with torch.no_grad():
        mine, theirs = engine.forward(images), plain.forward(images)
    assert torch.equal(mine.logits, theirs.logits)
    assert torch.equal(mine.margin_lipschitz, theirs.margin_lipschitz)
    with engine.whole_model() as model, plain.whole_model() as other:
        exported, wanted = model.export().tensors(), other.export().tensors()  # type: ignore
    assert all((exported[name] == wanted[name]).all() for name in wanted)
    same(whole(engine.state()), state)
    engine.module.train()
    return rows


def save(kind: str, path: str, end: int) -> Any:
    """Train from the beginning, and save after step `end`."""
    engine = engine_of(kind)
    rows = train(engine, 0, end)
    _write(whole(engine.state()), Path(path))
    return rows


def go_on(kind: str, path: str, begin: int, end: int, to: str | None = None) -> Any:
    """Load what was saved after `begin` steps: it is there to the bit. Train on and save."""
    saved = {part: load_file(Path(path) / part) for part in ("model", "optimizer")}
    engine = engine_of(kind)
    engine.load_state(WholeState(saved))
    same(whole(engine.state()), saved)
    rows = train(engine, begin, end)
    same_buffers(engine)
    engine.load_state(WholeState(saved))  # over a state that is there already
    same(whole(engine.state()), saved)
    if to is not None:
        # Once more: the second continuation is the first one.
        assert train(engine, begin, end) == rows
        _write(whole(engine.state()), Path(to))
    return rows


def bad_gradient(kind: str) -> Any:
    """One rank's gradient of the first layer is NaN: named on all ranks; weights untouched."""
    engine = engine_of(kind)
    train(engine, 0, 2)
    before = whole(engine.state())
    with _poisoned("trunk.stem.conv", engine):
        message = _refused(engine, None)
    bad = ["trunk.stem.conv.weight", "trunk.stem.conv.bias"]
    assert engine.bad_gradients() == bad
    assert gather_objects(message) == [message] * engine.world.size
    _same_weights(before, whole(engine.state()))
    return message


def bad_loss(kind: str) -> Any:
    """One rank's loss is NaN: all stop before the update."""
    engine = engine_of(kind)
    train(engine, 0, 2)
    before = whole(engine.state())
    emma = build_objective("emma")

    def broken(model: Callable[[Tensor], Any], batch: Any, epsilon: float) -> Any:
        losses = emma(model, batch, epsilon)
        if engine.world.rank == engine.world.size - 1:
            losses.per_sample[0].data.fill_(torch.nan)
        return losses

    message = _refused(engine, broken)
    assert gather_objects(message) == [message] * engine.world.size
    _same_weights(before, whole(engine.state()))
    return message


def bad_weight(kind: str) -> Any:
    """A weight that no rank has whole is NaN: it is named."""
    engine = engine_of(kind)
    saved = whole(engine.state())
    saved["model"]["trunk.neck.dense.weight"][-1, -1] = torch.nan
    engine.load_state(WholeState(saved))
    return _refused(engine, None)


def refused_states(kind: str) -> Any:
    """States that are not of this model, or cannot be sharded; the sentences."""
    engine = engine_of(kind)
    train(engine, 0, 1)
    good = whole(engine.state())
    found = []
    for part, name, value in [
        ("model", "trunk.stem.conv.weight", torch.zeros(2, 1, 3, 3)),
        ("model", "head.bias", None),
        ("model", "head.scale", torch.zeros(2)),
        ("optimizer", "head.bias/slow", torch.zeros(3)),
        ("optimizer", "head.scale/slow", torch.zeros(3)),
        ("optimizer", "head.bias/step", torch.tensor(9.0)),
        ("optimizer", "head.bias/slow", None),
    ]:
        bad = {key: dict(tensors) for key, tensors in good.items()}
        if value is None:
            del bad[part][name]
        else:
            bad[part][name] = value
        try:
            engine.load_state(WholeState(bad))
        except ValueError as error:
            found.append(str(error))
        else:
            found.append("")
    return found


def always_released(rows: list[list[float]]) -> Any:
    """Stage 3 for models beyond 1e9 parameters, whose weights are not kept until they are used."""
    from pipeline.training import deepspeed_engine

    usual = deepspeed_engine.deepspeed_config

    def changed(stage: int, size: int) -> Any:
        config = dict(usual(stage, size))
        limits = {"stage3_max_reuse_distance": 0, "stage3_max_live_parameters": 0}
        return config | {"zero_optimization": config["zero_optimization"] | limits}

    deepspeed_engine.deepspeed_config = changed
    try:
        found = steps("3")
    finally:
        deepspeed_engine.deepspeed_config = usual
    assert found == rows
    return None


def _refused(engine: Engine, objective: Any) -> str:
    try:
        train(engine, 2, 3, objective)
    except NonFiniteError as error:
        return str(error)
    raise AssertionError("it went on")


@contextmanager
def _poisoned(layer: str, engine: Engine) -> Any:
    """On the last rank, the gradient that reaches a layer's output is NaN."""

    def hook(_module: Any, _inputs: Any, output: Tensor) -> None:
        if engine.world.rank == engine.world.size - 1:
            output.register_hook(lambda gradient: gradient * torch.nan)

    handle = engine.module.get_submodule(layer).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _same_weights(
    before: dict[str, dict[str, Tensor]], after: dict[str, dict[str, Tensor]]
) -> None:
    """All but the power-iteration vectors, which a forward advances."""
    vectors = {name for name in before["model"] if name.endswith(".vector")}
    for state in (before, after):
        state["model"] = {k: v for k, v in state["model"].items() if k not in vectors}
    same(before, after)


def _write(state: dict[str, dict[str, Tensor]], folder: Path) -> None:
    if current_world().is_main:
        folder.mkdir(parents=True)
        for part, tensors in state.items():
            save_file(tensors, folder / part)
    distributed.barrier()


def main() -> None:
    """Make the calls; one that fails ends the process."""
    world = distributed.start()
    make_deterministic(0)
    for name, arguments in json.loads(sys.argv[1]):
        result = globals()[name](**arguments)
        distributed.barrier()
        if world.is_main:
            print("RESULT" + json.dumps(result), flush=True)
    distributed.stop()


if __name__ == "__main__":
    main()
