"""What a wrapped model returns: a dataclass of tensors (and None), whatever its task.

Notable: engines know no more of it than this. A classifier returns a `Prediction`, a denoiser of
`pipeline.diffusion` its own kind; both leave the wrapped forward in float32.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

from torch import Tensor

Output = TypeVar("Output")


def as_float32(output: Output) -> Output:
    """The same output with every tensor in float32."""
    values = {name: tensor.float() for name, tensor in tensors_of(output).items()}
    return replace(output, **values)  # type: ignore[type-var]


def tensors_of(output: Any) -> dict[str, Tensor]:
    """The tensors of an output by the names of their fields; fields that are None are left out."""
    named = {field.name: getattr(output, field.name) for field in fields(output)}
    return {name: tensor for name, tensor in named.items() if tensor is not None}
