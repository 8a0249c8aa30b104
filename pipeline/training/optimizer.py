"""NAdam with Lookahead as one `torch.optim.Optimizer` (LiResNet, Appendix B.1).

Notable:
- With Lookahead off the parameters are bit for bit those of `torch.optim.NAdam(foreach=False)`,
  and the state has the same names, shapes and dtypes.
- One optimizer, not a wrapper: the slow weights are state of the parameter like the moments, so
  that a checkpoint and ZeRO's flat partitions carry them. Every operation is elementwise; nothing
  depends on a parameter's shape.
- `step` and `mu_product` stay on the CPU: the host needs their values, and reading them from a GPU
  would stall it once a parameter and step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from pipeline.config import OptimizerConfig


class NAdamLookahead(torch.optim.Optimizer):
    """NAdam (Dozat 2016) inside Lookahead (Zhang et al. 2019, Algorithm 1).

    NAdam makes the fast steps. Every `lookahead_steps` of them the slow weights, which begin as the
    initial parameters φ_0, go `lookahead_alpha` of the way to the parameters, and the parameters
    are set back to the slow weights; the moments of NAdam go on untouched. (timm's wrapper, used by
    the code of LiResNet's successor, begins with the slow weights at the first set-back: its first
    k steps are not averaged.)

    `lr` of each parameter group is set by the training loop before each step.

    Args:
        params: parameters or parameter groups, as for every optimizer.
        lr, betas, eps, momentum_decay: as `torch.optim.NAdam`.
        weight_decay: as `torch.optim.NAdam`: an l2 penalty added to the gradient, not decoupled.
        lookahead_steps: k; 0 switches Lookahead off.
        lookahead_alpha: α, the slow step size.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        lookahead_steps: int = 6,
        lookahead_alpha: float = 0.5,
    ) -> None:
        if not (0 <= betas[0] < 1 and 0 <= betas[1] < 1):
            raise ValueError(f"betas {tuple(betas)} must each lie in [0, 1)")
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "lookahead_steps": lookahead_steps,
            "lookahead_alpha": lookahead_alpha,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for params in self._alike(group):
                self._update(params, group)
        return loss

    def _alike(self, group: dict[str, Any]) -> list[list[Tensor]]:
        """The group's parameters with a gradient, in lists that share device, dtype and history.

        Such parameters have every scalar coefficient of the update in common, so that one fused
        (`foreach`) operation serves them all.
        """
        lists: dict[tuple[Any, ...], list[Tensor]] = defaultdict(list)
        for param in group["params"]:
            if param.grad is None:
                continue
            state = self.state[param]
            if not state:
                state["step"] = torch.tensor(0.0, dtype=torch.float32)
                # torch keeps mu_product in the default dtype; equal results need the same.
                state["mu_product"] = torch.tensor(1.0, dtype=torch.get_default_dtype())
                state["exp_avg"] = torch.zeros_like(param)
                state["exp_avg_sq"] = torch.zeros_like(param)
                if group["lookahead_steps"]:
                    state["slow"] = param.detach().clone()
            history = (state["step"].item(), state["mu_product"].item())
            lists[(param.device, param.dtype, *history)].append(param)
        return list(lists.values())

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """One NAdam step of parameters with the same history, then Lookahead when it is due."""
        state = {key: [self.state[p][key] for p in params] for key in self.state[params[0]]}
        beta1, beta2 = group["betas"]
        lr, decay = group["lr"], group["momentum_decay"]

        torch._foreach_add_(state["step"], 1)
        step = state["step"][0].item()
        mu = beta1 * (1.0 - 0.5 * 0.96 ** (step * decay))
        mu_next = beta1 * (1.0 - 0.5 * 0.96 ** ((step + 1) * decay))
        torch._foreach_mul_(state["mu_product"], mu)
        mu_product = state["mu_product"][0].item()

        grads: list[Tensor] | tuple[Tensor, ...] = [
            param.grad for param in params if param.grad is not None
        ]
        if group["weight_decay"]:
            grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
        torch._foreach_lerp_(state["exp_avg"], grads, 1 - beta1)
        torch._foreach_mul_(state["exp_avg_sq"], beta2)
        torch._foreach_addcmul_(state["exp_avg_sq"], grads, grads, value=1 - beta2)

        denominators = torch._foreach_div(state["exp_avg_sq"], 1 - beta2**step)
        torch._foreach_sqrt_(denominators)
        torch._foreach_add_(denominators, group["eps"])
        of_gradient = -lr * (1.0 - mu) / (1.0 - mu_product)
        of_momentum = -lr * mu_next / (1.0 - mu_product * mu_next)
        torch._foreach_addcdiv_(params, grads, denominators, value=of_gradient)
        torch._foreach_addcdiv_(params, state["exp_avg"], denominators, value=of_momentum)

        if group["lookahead_steps"] and step % group["lookahead_steps"] == 0:
            torch._foreach_lerp_(state["slow"], params, group["lookahead_alpha"])
            torch._foreach_copy_(params, state["slow"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, to the bit.

        torch moves every float but `step` to the device and dtype of its parameter; `mu_product`
        is put back where it belongs.
        """
        super().load_state_dict(state_dict)
        for group, saved_group in zip(self.param_groups, state_dict["param_groups"], strict=True):
            for param, index in zip(group["params"], saved_group["params"], strict=True):
                if index in state_dict["state"]:
                    mu_product = state_dict["state"][index]["mu_product"]
                    self.state[param]["mu_product"] = mu_product.detach().cpu().clone()


def build_optimizer(params: Iterable[Any], config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer that a run's `optimizer` section describes (`clip_norm` is the loop's)."""
    if config.name == "adam":
        shared = config.model_dump(include={"lr", "betas", "eps", "weight_decay"})
        return torch.optim.Adam(params, **shared)
    return NAdamLookahead(params, **config.model_dump(exclude={"name", "clip_norm"}))
