"""What two real gloo processes must do; `test_two_processes.py` launches it, once for all checks.

Every function runs on both ranks and asserts on both. Its result, a JSON value or None, is printed
by rank 0 for the test to compare with one process.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from pipeline import distributed
from pipeline.distributed import World, gather_objects
from pipeline.lipschitz import power_iteration
from pipeline.objectives import build_objective
from pipeline.training.guards import NonFiniteError
from pipeline.training.threatening import ThreateningClasses
from pipeline.training.validation import validate
from tests.training.test_checkpointing import Run, steps
from tests.training.test_threatening import CPU, end_epoch, show
from tests.training.toy import Recorder, ToyBlocks, toy_engine, toy_loop, toy_model


def weights_of(engine: Any) -> dict[str, float]:
    """A number for each tensor, that equal tensors have in common."""
    return {name: t.double().sum().item() for name, t in engine.module.state_dict().items()}


def same_steps(world: World) -> list[Any]:
    """20 steps, whole and in two micro-batches: (loss, correct, gradient norm, K) of each."""
    found = []
    for accumulation in (1, 2):
        recorder, engine = Recorder(), toy_engine()
        toy_loop(engine, [recorder], accumulation=accumulation).run()
        weights = weights_of(engine)
        assert gather_objects(weights) == [weights] * 2, "weights and vectors are equal"
        rows = [
            (r.loss, r.metrics["correct"], r.gradient_norm, r.lipschitz) for r in recorder.records
        ]
        assert gather_objects(rows) == [rows] * 2
        found.append(rows)
    return found


def one_rank_is_not_finite(world: World) -> None:
    """Both stop before the update, with one sentence."""
    emma, calls = build_objective("emma"), 0

    def broken(model: Any, batch: Any, epsilon: float) -> Any:
        nonlocal calls
        calls += 1
        losses = emma(model, batch, epsilon)
        if calls >= 3 and world.rank == 1:
            losses.per_sample[0].data.fill_(torch.nan)
        return losses

    engine, recorder = toy_engine(), Recorder()
    try:
        toy_loop(engine, [recorder], broken).run()
    except NonFiniteError as error:
        assert error.step == 3 and gather_objects(str(error)) == [str(error)] * 2
    else:
        raise AssertionError("it went on")
    weights = weights_of(engine)
    assert gather_objects(weights) == [weights] * 2
    assert [record.step for record in recorder.records] == [1, 2]


def one_rank_asks_to_stop(world: World) -> None:
    """Both leave after the same step."""
    recorder = Recorder()
    loop = toy_loop(
        callbacks=[recorder],
        wants_to_stop=lambda: world.rank == 1 and len(recorder.records) == 5,
    )
    assert loop.run() == 6 and recorder.records[-1].leaves


def power_iteration_is_divided(world: World) -> None:
    """Each rank advances its share of the layers, and all have the vectors of one process."""
    advanced: list[int] = []
    plain = power_iteration._advanced

    def counted(group: Any, iterations: int) -> Any:
        advanced.append(len(group))
        return plain(group, iterations)

    model = toy_model()
    requests = [r for _, layer in model.named_layers() if (r := layer.norm_request())]
    expected = [plain([request], 3)[0] for request in requests]
    power_iteration._advanced = counted
    try:
        estimates = power_iteration.estimate_norms(requests, 3, update=True)
    finally:
        power_iteration._advanced = plain
    assert sum(gather_objects(sum(advanced))) == len(requests) > 2 and sum(advanced) < len(requests)
    for request, vector in zip(requests, expected, strict=True):
        torch.testing.assert_close(request.vector, vector)
        assert gather_objects(request.vector.sum().item()) == [request.vector.sum().item()] * 2
    again = power_iteration.estimate_norms(requests, 0, update=False)
    torch.testing.assert_close(again, estimates)
    estimates.prod().backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "conv.weight" in n)


def waiting_for_another_rank_is_communication(world: World) -> None:
    """A slow forward of rank 1 is its own forward, and rank 0's communication."""
    emma, recorder, pause = build_objective("emma"), Recorder(), 0.2

    def slow(model: Any, batch: Any, epsilon: float) -> Any:
        time.sleep(pause * world.rank)
        return emma(model, batch, epsilon)

    toy_loop(toy_engine(), [recorder], slow).run()
    part = "forward" if world.rank == 1 else "communication"
    # DDP puts its buckets into another order once, in the third forward, which waits for all ranks.
    assert min(record.seconds[part] for record in recorder.records[3:]) > pause / 2


def threatening_classes(world: World) -> None:
    """The memory is one over the ranks, and goes through a checkpoint."""
    memory = ThreateningClasses(4, CPU)
    show(memory, {0: 1, 1: 1} if world.rank == 0 else {2: 1, 3: 1})
    assert end_epoch(memory) is None
    show(memory, {2: 1} if world.rank == 0 else {1: 2})  # other ranks than before
    saved = {name: tensor.clone() for name, tensor in memory.tensors().items()}
    assert saved["now"].tolist() == [-1, 2, 1, -1] and saved["before"].tolist() == [1] * 4
    memory = ThreateningClasses(4, CPU)
    memory.load_tensors(saved)
    show(memory, {3: 2} if world.rank == 0 else {0: 1})
    assert end_epoch(memory) == 0.5


def validation(world: World) -> list[Any]:
    """Clean accuracy and VRA estimate of sets of five blocks, and of one block."""
    found = []
    for samples in (70, 10):
        result = validate(toy_engine(), ToyBlocks(samples, 16), 0.1)
        assert gather_objects(result) == [result] * 2
        found.append([samples, result.clean_accuracy, result.vra_estimate])
    return found


def unequal_vectors(world: World) -> None:
    """Power-iteration vectors that differ are not saved, and named on both ranks."""
    root = Path(distributed.broadcast_object(tempfile.mkdtemp()))
    run = Run(root)
    if world.rank == 1:
        run.engine.module.get_buffer("trunk.stem.conv.vector").mul_(2)
    try:
        run.checkpointing.save(3)
    except RuntimeError as error:
        assert "'trunk.stem.conv.vector' of rank 1" in str(error)
    else:
        raise AssertionError("they were saved")
    assert steps(root) == []


CHECKS = [
    same_steps,
    one_rank_is_not_finite,
    one_rank_asks_to_stop,
    power_iteration_is_divided,
    waiting_for_another_rank_is_communication,
    threatening_classes,
    validation,
    unequal_vectors,
]


def main() -> None:
    """Run all checks; one that fails ends the process."""
    world = distributed.start()
    for check in CHECKS:
        result = check(world)
        distributed.barrier()
        if world.is_main:
            print(f"{check.__name__}={json.dumps(result)}", flush=True)
    distributed.stop()


if __name__ == "__main__":
    sys.exit(main())
