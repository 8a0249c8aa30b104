"""The engine on DeepSpeed: ZeRO stages 0 to 3, on GPUs (nccl) and without (gloo).

Notable:
- `deepspeed.initialize` is called directly in the process group that is already there: any
  launcher will do, and DeepSpeed has no reason to look for MPI.
- Parameters are float32 in "bf16" too: autocast surrounds the model *inside* the module that
  DeepSpeed wraps, since DeepSpeed switches off one that surrounds its own forward.
- DeepSpeed neither scales the loss nor clips: the gradient's norm must be known, and the same on
  all ranks, before the loop decides whether there is an update at all.
- Under stage 3 the Lipschitz estimates reach for the weights of every layer at once. DeepSpeed sees
  that and gathers them all for the forward; a model of up to 1e9 values stays whole until the
  backward is done, a larger one is gathered again for it. So a rank does hold the whole model for
  a while; sharded is what lives longer: weights between steps, gradients, optimizer state.
- DeepSpeed would compile a C++ extension for its inference on CPUs. It is not used here, and its
  build is skipped: ranks killed in it leave a lock in the home directory that hangs all later ones.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.checkpoint.fragments import Part, SavedState
from pipeline.distributed import (
    World,
    current_world,
    gather_objects,
    group_of_all,
    local_device,
    sum_over_ranks,
)
from pipeline.training.deepspeed_timing import time_collectives
from pipeline.training.engine import Engine
from pipeline.training.outputs import as_float32, tensors_of
from pipeline.training.replicated_state import load_replicated_state, replicated_state
from pipeline.training.zero_layout import FlatLayout, Layout, ParameterLayout
from pipeline.training.zero_state import load_sharded_state, sharded_state

BUCKET = 25_000_000
"""Most values in one message between ranks: 100 MB of float32."""
PERSISTENT = 1024
"""Stage 3 leaves parameters of up to so many values whole: biases and β."""


class DeepSpeedEngine(Engine):
    """DeepSpeed with ZeRO.

    Args:
        model: equal on every rank; trained in place.
        optimizer: of the parameters of `model`; it is given ZeRO's partitions to update. Its
            operations must be elementwise.
        precision: "fp32", or "bf16" for autocast of the training forward.
        stage: 0 replicates everything, 1 shards the optimizer's state, 2 the gradients too, 3 the
            weights too.

    Raises:
        ValueError: DeepSpeed cannot be imported.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: str = "fp32",
        stage: int = 1,
    ) -> None:
        self.world = current_world()
        self.device = local_device(self.world)
        self.module = model
        self._optimizer = optimizer
        self._norm: Tensor | None = None
        self._deepspeed = _import_deepspeed(self.device)
        _join_alone(self.world, self.device)
        _make_group(self.world)
        names: dict[Tensor, str] = {param: name for name, param in model.named_parameters()}
        size = sum(param.numel() for param in names)
        self._wrapped = _Wrapped(model, precision == "bf16")
        self._engine, zero, *_ = self._deepspeed.initialize(
            args=SimpleNamespace(device_rank=self.device.index or 0),
            model=self._wrapped,
            optimizer=optimizer,
            config=deepspeed_config(stage, size),
        )
        time_collectives(self._deepspeed.comm.comm.cdb)
        self._stage = stage
        self._layout: Layout | None = None
        if stage == 3:
            self._layout = ParameterLayout(zero, names, self.world.rank)
        elif stage:
            self._layout = FlatLayout(zero, names)

    def forward(self, *inputs: Tensor) -> Any:
        """See `Engine.forward`."""
        return self._wrapped.put_together(self._engine(*inputs))

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        """See `Engine.micro_batch`. Stages 2 and 3 sum over the ranks in each one."""
        self._engine.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: Tensor) -> None:
        """See `Engine.backward`."""
        self._engine.backward(loss)

    @torch.no_grad()
    def gradient_norm(self) -> Tensor:
        """See `Engine.gradient_norm`."""
        squares = torch.zeros((), device=self.device)
        if gradients := [gradient for _, gradient in self._gradients()]:
            squares = torch.stack(torch._foreach_norm(gradients)).square().sum()
        if self._layout is not None:  # otherwise every rank has the whole gradient
            sum_over_ranks(squares)
        self._norm = squares.sqrt()
        return self._norm

    @torch.no_grad()
    def bad_gradients(self) -> list[str]:
        """See `Engine.bad_gradients`."""
        mine = {name for name, gradient in self._gradients() if not gradient.norm().isfinite()}
        bad = set().union(*gather_objects(mine))
        return [name for name, _ in self.module.named_parameters() if name in bad]

    @torch.no_grad()
    def step(self, learning_rate: float, clip_norm: float | None) -> None:
        """See `Engine.step`."""
        assert self._norm is not None, "step comes after gradient_norm"
        gradients = [gradient for _, gradient in self._gradients()]
        if clip_norm is not None and gradients:
            # Multiplied in either case: asking whether the norm is too long would stall the GPU.
            scale = (clip_norm / (self._norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(gradients, scale)
        del gradients  # they are freed as the step goes on
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        assert self._engine.was_step_applied(), "the loop has seen that the gradient is finite"
        self._norm = None

    def state(self) -> dict[str, Part]:
        """See `Engine.state`."""
        if self._layout is None:
            return replicated_state(self.module, self._optimizer, self.world.is_main)
        return sharded_state(self._layout, self.module, self._optimizer, self.world.is_main)

    def load_state(self, saved: SavedState) -> None:
        """See `Engine.load_state`.

        Raises:
            ValueError: as there, or because parameters made different numbers of steps.
        """
        if self._layout is None:
            load_replicated_state(saved, self.module, self._optimizer)
        else:
            load_sharded_state(saved, self._layout, self.module, self._optimizer)

    @contextmanager
    def whole_model(self) -> Iterator[nn.Module]:
        """See `Engine.whole_model`."""
        if self._stage < 3:
            yield self.module
        else:
            with self._deepspeed.zero.GatheredParameters(list(self.module.parameters())):
                yield self.module

    def _gradients(self) -> Iterator[tuple[str, Tensor]]:
        """Name and averaged gradient of what this rank has of the parameters."""
        if self._layout is not None:
            yield from self._layout.gradients()
            return
        for name, parameter in self.module.named_parameters():
            if parameter.grad is not None:
                yield name, parameter.grad


class _Wrapped(nn.Module):
    """What DeepSpeed wraps: inputs to the tensors of the model's output, float32.

    DeepSpeed finds tensors in tuples, not in dataclasses. So the model's `forward` is called
    without its hooks, and no module that has hooks of DeepSpeed returns a dataclass.
    """

    def __init__(self, model: nn.Module, bf16: bool) -> None:
        super().__init__()
        self.model = model
        self.bf16 = bf16
        self._kind: type[Any] | None = None
        self._names: list[str] = []

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The fields of the output that are not None."""
        autocast = self.bf16 and self.model.training
        with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=autocast):
            output = self.model.forward(*inputs)
        tensors = tensors_of(as_float32(output))
        self._kind, self._names = type(output), list(tensors)
        return tuple(tensors.values())

    def put_together(self, tensors: tuple[Tensor, ...]) -> Any:
        """What the last `forward` took apart."""
        assert self._kind is not None, "put_together comes after forward"
        return self._kind(**dict(zip(self._names, tensors, strict=True)))


def deepspeed_config(stage: int, size: int) -> Mapping[str, Any]:
    """What DeepSpeed is told.

    Args:
        stage: of ZeRO.
        size: values in all parameters; no buffer is larger.
    """
    bucket = min(BUCKET, size + size % 2)  # DeepSpeed wants an even number
    return {
        # Batch and accumulation are the loop's; DeepSpeed counts samples for its own log only.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,  # off; its default is 1
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "stage3_param_persistence_threshold": PERSISTENT,
        },
        "timers": {"throughput": {"enabled": False}},  # it would wait for the GPU in every step
    }


def _import_deepspeed(device: torch.device) -> ModuleType:
    """DeepSpeed, told which device we chose."""
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    try:
        import deepspeed
    except ImportError as error:
        raise ValueError(
            f"engine is 'deepspeed', which cannot be imported ({error}): pip install deepspeed, or "
            "set engine to accelerate"
        ) from None
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # see the file's docstring
    # What it says of every optimizer but its own, and torch of the collectives that it calls.
    deepspeed.utils.logger.addFilter(lambda row: "untested optimizer" not in row.getMessage())
    warnings.filterwarnings(
        "ignore", r"`torch\.distributed\.\w+_tensor` is deprecated", FutureWarning
    )
    return deepspeed


def _make_group(world: World) -> None:
    """DeepSpeed's own group of all ranks would have torch's timeout instead of the run's."""
    from deepspeed.utils import groups

    if world.size > 1 and groups._WORLD_GROUP is None:
        groups._WORLD_GROUP = group_of_all()


def _join_alone(world: World, device: torch.device) -> None:
    """DeepSpeed needs a process group and, in gathers, LOCAL_RANK; one process may have none."""
    os.environ.setdefault("LOCAL_RANK", str(world.local_rank))
    if not dist.is_initialized():
        assert world.size == 1, "pipeline.distributed.start() comes first"
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
