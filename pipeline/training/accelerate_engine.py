"""The engine on Hugging Face accelerate: one process, or DDP on many (nccl or gloo).

Notable:
- accelerate moves and wraps the model; autocast, clipping and the batch are ours, since the order
  of samples, the reduction and the guard against non-finite gradients are.
- DDP's broadcast of buffers is off. It would overwrite the power-iteration vectors with rank 0's
  before every forward; they are equal on all ranks by construction, which checkpointing verifies.
- Without a GPU `Accelerator(cpu=True)` is what makes accelerate see more than one process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn

from pipeline.checkpoint.fragments import Part, SavedState
from pipeline.distributed import current_world
from pipeline.training.engine import Engine
from pipeline.training.outputs import as_float32
from pipeline.training.replicated_state import load_replicated_state, replicated_state


class AccelerateEngine(Engine):
    """One process or DDP.

    Args:
        model: equal on every rank; trained in place.
        optimizer: of the parameters of `model`.
        precision: "fp32", or "bf16" for autocast of the training forward.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, precision: str = "fp32"
    ) -> None:
        self._accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision="no",  # ours, see `forward`: accelerate's would also hold in evaluation
            kwargs_handlers=[
                DistributedDataParallelKwargs(
                    broadcast_buffers=False,
                    gradient_as_bucket_view=True,
                    # Else DDP fills its messages in another order from the second step on. Sums
                    # over three ranks or more are then rounded otherwise, and a run that is
                    # resumed, whose first step is a first step again, has other bits.
                    find_unused_parameters=True,
                )
            ],
        )
        self.world = current_world()
        assert self._accelerator.num_processes == self.world.size, "accelerate sees another world"
        self.device = self._accelerator.device
        self.module = model
        self._wrapped = self._accelerator.prepare_model(model)
        self._optimizer = optimizer
        self._bf16 = precision == "bf16"
        self._norm: Tensor | None = None

    def forward(self, *inputs: Tensor) -> Any:
        """See `Engine.forward`."""
        autocast = self._bf16 and self.module.training
        with torch.autocast(self.device.type, torch.bfloat16, enabled=autocast):
            output = self._wrapped(*inputs)
        return as_float32(output)

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        """See `Engine.micro_batch`."""
        if last:
            yield
        else:
            with self._accelerator.no_sync(self._wrapped):
                yield

    def backward(self, loss: Tensor) -> None:
        """See `Engine.backward`."""
        self._accelerator.backward(loss)

    def gradient_norm(self) -> Tensor:
        """See `Engine.gradient_norm`."""
        self._norm = torch.linalg.vector_norm(torch.stack(self._norms()[1]))
        return self._norm

    def bad_gradients(self) -> list[str]:
        """See `Engine.bad_gradients`."""
        names, norms = self._norms()
        finite = torch.stack(norms).isfinite().tolist()
        return [name for name, good in zip(names, finite, strict=True) if not good]

    def step(self, learning_rate: float, clip_norm: float | None) -> None:
        """See `Engine.step`."""
        assert self._norm is not None, "step comes after gradient_norm"
        if clip_norm is not None:
            # Multiplied in either case: asking whether the norm is too long would stall the GPU.
            scale = (clip_norm / (self._norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(self._gradients()[1], scale)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._norm = None

    def state(self) -> dict[str, Part]:
        """See `Engine.state`."""
        return replicated_state(self.module, self._optimizer, self.world.is_main)

    def load_state(self, saved: SavedState) -> None:
        """See `Engine.load_state`."""
        load_replicated_state(saved, self.module, self._optimizer)

    @contextmanager
    def whole_model(self) -> Iterator[nn.Module]:
        """See `Engine.whole_model`."""
        yield self.module

    def _gradients(self) -> tuple[list[str], list[Tensor]]:
        """Names and gradients of the parameters that have one."""
        pairs = [
            (name, parameter.grad)
            for name, parameter in self.module.named_parameters()
            if parameter.grad is not None
        ]
        return [name for name, _ in pairs], [gradient for _, gradient in pairs]

    def _norms(self) -> tuple[list[str], list[Tensor]]:
        """Names, and each parameter's gradient norm."""
        names, gradients = self._gradients()
        return names, list(torch._foreach_norm(gradients))
