"""The sections `diffusion` and `sampling`: a generator's training, and what is drawn from it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.config.section import Section


class MonitorConfig(Section):
    """Samples drawn during training, for TensorBoard."""

    every: int = Field(0, ge=0)
    """Epochs between looks; 0 looks after the last epoch only."""
    images: int = Field(80, ge=0)
    """Drawn at each look, equally many of each class; 0 switches looks off."""
    steps: int = Field(25, gt=0)
    """Of DPM-Solver++."""
    guidance: float = Field(1.0, ge=0)
    batch_size: int = Field(80, gt=0)
    classifier: str | None = None
    """Run directory of a classifier of ours: the Fréchet distance between its features of drawn
    and of training images is logged."""
    reference: int = Field(10_000, gt=1)
    """Training images that this distance is taken to, at most."""


class DiffusionConfig(Section):
    """A class-conditional DDPM with learned variance (Nichol & Dhariwal 2021)."""

    timesteps: int = Field(4000, gt=1)
    """T of the cosine schedule."""
    prediction: Literal["epsilon", "v"] = "epsilon"
    """What the network predicts: the noise, as improved DDPM, or v (Salimans & Ho 2022), which
    draws usable images after fewer steps of training."""
    vlb_weight: float = Field(0.001, ge=0)
    """λ of L_simple + λ·L_vlb."""
    class_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of training images whose label is hidden, for classifier-free guidance."""
    ema: float = Field(0.9999, ge=0, lt=1)
    """Decay of the weight average that samples are drawn with; shorter in the first steps."""
    monitor: MonitorConfig = MonitorConfig()


class FilterConfig(Section):
    """Keeps samples that a classifier of ours recognises."""

    classifier: str
    """Its run directory."""
    confidence: float = Field(0.5, gt=0, lt=1)
    """Least softmax probability of the label that a sample was drawn for."""


class SamplingConfig(Section):
    """What `tools/ddpm_sample.py` and the task `ddpm_sample` draw."""

    out: str | None = None
    """A .beton or .npz file."""
    count: int = Field(50_000, gt=0)
    steps: int = Field(50, gt=0)
    sampler: Literal["dpm++", "ddim"] = "dpm++"
    """DPM-Solver++ of second order, or DDIM (η = 0)."""
    guidance: float = Field(1.0, ge=0)
    """Weight of classifier-free guidance; 1 is none, and half the work."""
    seed: int = Field(0, ge=0, lt=2**63)
    batch_size: int = Field(256, gt=0)
    """Images that are drawn together; samples are equal to the byte at the same size only."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU, fp32 without one."""
    compile: bool = False
    """torch.compile the network: minutes at the start, faster afterwards."""
    checkpoint: str = "newest"
    """Of the generator's run: newest, or a step."""
    nearest: int = Field(1000, ge=0)
    """Samples whose nearest training image goes into the data card; 0 where that is not there."""
    filter: FilterConfig | None = None
    force: bool = False
    """Replace a file that is there, and unfinished samples of other settings."""
