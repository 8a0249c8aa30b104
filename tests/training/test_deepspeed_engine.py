"""ZeRO on real gloo processes: all stages and engines make the same steps and share states."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline import config as configs
from pipeline.training.run_directory import prepare
from tests.training.deepspeed_processes import CLIP_NORM, KINDS, STEPS, config_of
from tests.training.toy import ROOT

Rows = list[list[float]]
NOISE = ("untested optimizer", "is deprecated. Please use", "built successfully", "[INFO]")


def launch(processes: int, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """The result of each call, made by that many processes, one after the other."""
    module = ["-m", "tests.training.deepspeed_processes", json.dumps(calls)]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return results([sys.executable, *(launcher if processes > 1 else []), *module])


def results(command: list[str]) -> list[Any]:
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=550,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert not [line for line in output.splitlines() if any(word in line for word in NOISE)]
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return [json.loads(line.removeprefix("RESULT")) for line in found]


def agree(rows: Rows, others: Rows, tolerance: float = 1e-4) -> None:
    """Losses to `tolerance`; gradient norms and K, which rounding moves more, to ten times that."""
    assert len(rows) == len(others) > 0
    for (loss, norm, lipschitz, _), (loss2, norm2, lipschitz2, _) in zip(rows, others, strict=True):
        assert loss == pytest.approx(loss2, rel=tolerance)
        assert norm == pytest.approx(norm2, rel=10 * tolerance)
        assert lipschitz == pytest.approx(lipschitz2, rel=10 * tolerance)


@dataclass(frozen=True)
class Launched:
    """What the default tests need, of as few processes as can be: starting one takes seconds."""

    alone: Rows
    """The steps of one process without DeepSpeed."""
    alone_at_stage_3: Rows
    refusals: list[str]
    two: dict[str, Rows]
    """The steps of two processes, by engine or stage."""
    bf16: dict[str, Rows]
    chain: Rows
    """Of 4 processes under stage 3, then 2 under stage 1, then 3 with DDP."""
    bad_gradient: list[str]
    bad_loss: str
    bad_weight: str


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    folder = tmp_path_factory.mktemp("states")
    first, second = str(folder / "first"), str(folder / "second")
    alone, refusals, alone_at_stage_3 = launch(
        1, ("steps", {"kind": "accelerate"}), ("refused_states", {"kind": "3"}),
        ("steps", {"kind": "3"}),
    )  # fmt: skip
    (begin,) = launch(4, ("save", {"kind": "3", "path": first, "end": 7}))
    bf16 = [("steps", {"kind": kind, "precision": "bf16"}) for kind in "13"]
    bad = [("bad_gradient", {"kind": kind}) for kind in "13"]
    bad += [(name, {"kind": "3"}) for name in ("bad_loss", "bad_weight")]
    middle, *two = launch(
        2, ("go_on", {"kind": "1", "path": first, "begin": 7, "end": 13, "to": second}),
        *[("steps", {"kind": kind}) for kind in KINDS], *bf16, *bad,
    )  # fmt: skip
    (end,) = launch(3, ("go_on", {"kind": "accelerate", "path": second, "begin": 13, "end": STEPS}))
    return Launched(
        alone=alone,
        alone_at_stage_3=alone_at_stage_3,
        refusals=refusals,
        two=dict(zip(KINDS, two[:5], strict=True)),
        bf16=dict(zip("13", two[5:7], strict=True)),
        chain=begin + middle + end,
        bad_gradient=two[7:9],
        bad_loss=two[9],
        bad_weight=two[10],
    )


def test_clipping_and_k_are_active(launched: Launched) -> None:
    losses, norms, lipschitz, _ = zip(*launched.alone, strict=True)
    assert len(losses) == STEPS and losses[-1] < losses[0]
    assert sum(1 < norm < CLIP_NORM for norm in norms) > 2, "not clipped, if nobody clips at 1"
    assert sum(norm > CLIP_NORM for norm in norms) > 2
    assert len(set(lipschitz)) == STEPS


def test_one_process_without_a_launcher(launched: Launched) -> None:
    agree(launched.alone_at_stage_3, launched.alone)


@pytest.mark.parametrize("kind", KINDS)
def test_all_stages_and_both_engines_make_the_same_steps(kind: str, launched: Launched) -> None:
    agree(launched.two[kind], launched.alone)


def test_bf16_is_autocast_of_float32_weights(launched: Launched) -> None:
    one, three = launched.bf16.values()
    agree(one, three, 1e-2)
    agree(one, launched.alone, 0.1)
    assert one[0][0] != pytest.approx(launched.alone[0][0], rel=1e-6), "it is not float32"


def test_other_engines_and_world_sizes_go_on(launched: Launched) -> None:
    agree(launched.chain, launched.alone)


def test_a_gradient_that_is_not_finite_is_named_and_changes_nothing(launched: Launched) -> None:
    for message in launched.bad_gradient:
        assert message.startswith(
            "step 3: the gradient of 'trunk.stem.conv.bias' (and of 1 more parameters) is not fin"
        )


def test_a_loss_that_is_not_finite_changes_nothing(launched: Launched) -> None:
    assert launched.bad_loss.startswith(
        "step 3: the loss is nan: every logit is finite, the objective is not"
    )


def test_a_sharded_weight_that_is_not_finite_is_named(launched: Launched) -> None:
    assert "the loss is nan: the parameter 'trunk.neck.dense.weight' is not" in launched.bad_weight


def test_what_is_not_this_models_or_cannot_be_sharded_is_refused(launched: Launched) -> None:
    refusals = launched.refusals
    assert refusals[:5] == [
        "the checkpoint is of another model: tensor 'trunk.stem.conv.weight' differs",
        "the checkpoint is of another model: tensor 'head.bias' differs",
        "the checkpoint is of another model: tensor 'head.scale' differs",
        "optimizer state 'head.bias/slow' has the shape [3], its parameter [10]",
        "optimizer state 'head.scale/slow' belongs to no parameter of this model",
    ]
    for message in refusals[5:]:
        assert "'trunk.stem.conv.weight' and 'head.bias' differ" in message
        assert "engine: accelerate, or with deepspeed.stage 0" in message


def test_deepspeed_that_is_missing_is_a_sentence() -> None:
    code = (
        "import sys; sys.modules['deepspeed'] = None\n"
        "from tests.training.deepspeed_processes import engine_of\n"
        "try: engine_of('1')\n"
        "except ValueError as error: print('RESULT\"' + str(error).split('(')[0] + '\"')\n"
        "engine_of('accelerate')"
    )
    assert results([sys.executable, "-c", code]) == [
        "engine is 'deepspeed', which cannot be imported "
    ]


def test_a_run_may_go_on_with_another_engine(tmp_path: Path) -> None:
    prepare(config_of("accelerate"), tmp_path, fresh=False)
    (tmp_path / "checkpoints" / "step_000001").mkdir(parents=True)
    prepare(config_of("3"), tmp_path, fresh=False)
    assert configs.load(tmp_path / "config.yaml").deepspeed.stage == 3


def test_a_stage_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"deepspeed\.stage.* 4: input should be less than"):
        config_of("4")


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 3, 4])
def test_every_stage_at_every_size(processes: int, launched: Launched) -> None:
    for rows in launch(processes, *[("steps", {"kind": kind}) for kind in KINDS]):
        agree(rows, launched.alone)


@pytest.mark.long
def test_stage_3_that_releases_weights_at_once_makes_the_same_steps() -> None:
    rows = launch(2, ("steps", {"kind": "3"}))[0]
    launch(2, ("always_released", {"rows": rows}))


@pytest.mark.long
@pytest.mark.parametrize(
    "chain",
    [
        [("accelerate", 2), ("3", 4), ("0", 1), ("2", 3)],
        [("2", 4), ("3", 3), ("1", 1), ("0", 2)],
        [("0", 3), ("2", 2), ("accelerate", 4), ("3", 1)],
        [("1", 3), ("1", 4), ("3", 2), ("3", 3)],
    ],
    ids=lambda chain: "-".join(f"{kind}x{processes}" for kind, processes in chain),
)
def test_long_chains(chain: list[tuple[str, int]], launched: Launched, tmp_path: Path) -> None:
    (kind, processes), *others = chain
    paths = [str(tmp_path / str(number)) for number in range(len(chain))]
    rows = launch(processes, ("save", {"kind": kind, "path": paths[0], "end": 5}))[0]
    for number, ((path, to), (kind, processes)) in enumerate(
        zip(pairwise(paths), others, strict=True), start=1
    ):
        step = {"path": path, "begin": 5 * number, "end": 5 * number + 5, "to": to}
        rows += launch(processes, ("go_on", {"kind": kind, **step}))[0]
    agree(rows, launched.alone)
