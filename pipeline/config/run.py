"""The config of a run: its sections, data, diffusion and cluster apart.

Notable:
- The one open section is `model`: its further keys are the options of `build_model`, and
  `objective`'s those of the objective; both are checked where they are used.
- `training.batch_size` is the *global* batch, whatever the number of processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.config.cluster import ClusterConfig
from pipeline.config.data import DataConfig
from pipeline.config.diffusion import DiffusionConfig, SamplingConfig
from pipeline.config.section import Section
from pipeline.types import Epsilon


class ModelConfig(BaseModel):
    """Arguments of `pipeline.models.build_model`; keys not named here are the model's options."""

    model_config = ConfigDict(extra="allow")

    name: str
    num_classes: int = Field(gt=1)
    image_size: int = Field(gt=0)
    in_channels: int = Field(3, gt=0)

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the chosen model alone."""
        return dict(self.model_extra or {})


class ObjectiveConfig(BaseModel):
    """The loss; keys not named here are the objective's options."""

    model_config = ConfigDict(extra="allow")

    name: str = "emma"

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the chosen objective alone."""
        return dict(self.model_extra or {})


class EpsilonConfig(Section):
    """The training radius: a linear ramp, then flat (LiResNet, Appendix B.1)."""

    target: str = "36/255"
    """The radius to be certified; "36/255" or a decimal, an l2 norm in stored-image space."""
    start: float = Field(0.1, ge=0)
    """Factor on the target at the first step."""
    end: float = Field(2.0, gt=0)
    """Factor on the target from the end of the ramp on."""
    ramp: float = Field(0.5, ge=0, le=1)
    """Share of the training over which the factor grows."""
    delay: float = Field(0.0, ge=0, le=1)
    """Share of the training before the ramp, in which ε is 0: the warm-up of CRM."""

    @field_validator("target", mode="before")
    @classmethod
    def _readable(cls, value: Any) -> str:
        return Epsilon.parse(value).text


class OptimizerConfig(Section):
    """NAdam with Lookahead, as one optimizer (LiResNet, Appendix B.1), or Adam (CPL, Section 5)."""

    name: Literal["nadam", "adam"] = "nadam"
    """"nadam" has Lookahead and `momentum_decay`; "adam" has neither."""
    lr: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    momentum_decay: float = Field(4e-3, ge=0)
    lookahead_steps: int = Field(6, ge=0)
    """k; 0 switches Lookahead off."""
    lookahead_alpha: float = Field(0.5, gt=0, le=1)
    clip_norm: float | None = Field(None, gt=0)
    """Largest l2 norm of the whole gradient."""

    @model_validator(mode="after")
    def _adam_has_no_lookahead(self) -> Self:
        for key in ("momentum_decay", "lookahead_steps", "lookahead_alpha"):
            if self.name == "adam" and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"{key} belongs to nadam, and optimizer.name is adam: leave it out"
                )
        return self


class TrainingConfig(Section):
    """Length, batch and precision."""

    epochs: int = Field(1, gt=0)
    steps: int = Field(0, ge=0)
    """Length in steps, where it is no whole number of epochs (an equal time for several networks);
    0 takes `epochs`, any other number replaces it."""
    batch_size: int = Field(256, gt=0)
    accumulation: int = Field(1, gt=0)
    """Micro-batches a step; batch_size must be divisible by processes × accumulation."""
    warmup_epochs: float = Field(0, ge=0)
    """Linear warm-up of the learning rate before the cosine."""
    schedule: Literal["cosine", "constant", "triangular"] = "cosine"
    """Of the learning rate: half a cosine to zero; the same to the end; or up to 40 % of the
    training, down to a twentieth at 80 % and to zero at the end (CPL, Section 5.1)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    validate_every: int = Field(1, ge=0)
    """Epochs between validations; 0 validates after the last epoch only."""
    log_every: int = Field(1, gt=0)
    """Steps between rows of metrics.jsonl and points in TensorBoard."""
    log_samples: bool = False
    """Write which samples every step used, to `samples/` in the run directory."""

    def total_steps(self, steps_per_epoch: int) -> int:
        """T, steps of the whole training."""
        return self.steps or self.epochs * steps_per_epoch


class DeepSpeedConfig(Section):
    """What the engine `deepspeed` shards among the ranks."""

    stage: int = Field(1, ge=0, le=3)
    """Of ZeRO: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 weights too."""


class CheckpointConfig(Section):
    """When to save and what to keep."""

    every_steps: int = Field(0, ge=0)
    """Steps between checkpoints; 0 saves at the end of each epoch only."""
    every_minutes: float = Field(0, ge=0)
    """Minutes, by the clock of rank 0, after which a step is saved too; 0 for never."""
    keep: int = Field(2, gt=0)
    """Newest checkpoints kept."""
    keep_best: int = Field(1, ge=0)
    """Of all checkpoints the best so many are kept too, by the estimate of VRA in validation."""


class CertificationConfig(Section):
    """The certification that ends a training run."""

    epsilons: list[str] = Field(["36/255", "72/255", "108/255", "1.0"])
    at_end: bool = True
    tight: bool = False
    """Norm bounds within 0.1 percent of the norms, with at most one axis on a torus; slower."""
    method: Literal["product", "liplt", "curvature"] = "product"
    """How margins are proved: by the product of the layers' norms, by LipLT (Theorem 3), or by
    curvature (CRC, for `mlp`); LipLT is for `cnn`, `mlp` and `slope_resnet`."""

    @field_validator("epsilons", mode="before")
    @classmethod
    def _readable(cls, values: Any) -> list[str]:
        if not isinstance(values, list | tuple) or not values:
            raise ValueError('give a list such as ["36/255", 0.25]')
        return [Epsilon.parse(value).text for value in values]


class RunConfig(Section):
    """Everything that defines a run."""

    name: str
    """The run directory is `output`/`name`."""
    output: str = "runs"
    task: Literal["train", "certify", "ddpm_train", "ddpm_sample"] = "train"
    seed: int = Field(0, ge=0, lt=2**63)
    engine: Literal["accelerate", "deepspeed"] = "accelerate"
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig
    objective: ObjectiveConfig = ObjectiveConfig()
    epsilon: EpsilonConfig = EpsilonConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    certification: CertificationConfig = CertificationConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    sampling: SamplingConfig = SamplingConfig()
    cluster: ClusterConfig = ClusterConfig()

    @property
    def directory(self) -> Path:
        """The run directory."""
        return Path(self.output) / self.name
