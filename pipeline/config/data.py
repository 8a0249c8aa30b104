"""The section `data`: images, their classes, reading and augmentation."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline.config.section import Section


class ResizedCropConfig(Section):
    """A box of random area and aspect ratio, resized: torchvision's RandomResizedCrop."""

    scale: tuple[float, float] = (0.08, 1.0)
    """Least and greatest share of the picture's area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and greatest width over height."""

    @field_validator("scale", "ratio")
    @classmethod
    def _ordered(cls, value: tuple[float, float], field: ValidationInfo) -> tuple[float, float]:
        largest = 1.0 if field.field_name == "scale" else math.inf
        if not (0 < value[0] <= value[1] <= largest and math.isfinite(value[1])):
            bound = ", not above 1" if field.field_name == "scale" else ""
            raise ValueError(f"give the least and the greatest, in this order, above 0{bound}")
        return value


class RandAugmentConfig(Section):
    """RandAugment (Cubuk et al., 2020) as torchvision has it, and its defaults."""

    operations: int = Field(2, gt=0, le=14)
    """Operations on an image, one after the other, each any of the 14."""
    magnitude: int = Field(9, ge=0)
    """How strong they are: 0 to bins - 1."""
    bins: int = Field(31, gt=1)

    @model_validator(mode="after")
    def _within_bins(self) -> RandAugmentConfig:
        if self.magnitude >= self.bins:
            raise ValueError(
                f"magnitude {self.magnitude} must be below bins {self.bins}: take "
                f"{self.bins - 1} or less"
            )
        return self


class AugmentationConfig(Section):
    """Random augmentation of training images; every draw is fixed by (seed, epoch, sample id)."""

    crop_padding: int = Field(0, ge=0)
    """Zero-pad by this many pixels on each side and crop back at a random place; 0 is off."""
    resized_crop: ResizedCropConfig | None = None
    """Instead of that crop: RandomResizedCrop; `{}` takes torchvision's defaults."""
    flip: bool = False
    """Mirror left to right with probability one half."""
    randaugment: RandAugmentConfig | None = None
    """`{}` takes torchvision's defaults."""
    cutout: int = Field(0, ge=0)
    """Side of a black square at a random place, in pixels; 0 is off."""

    @field_validator("resized_crop", "randaugment", mode="before")
    @classmethod
    def _mapping(cls, value: Any) -> Any:
        if value is None or isinstance(value, dict | ResizedCropConfig | RandAugmentConfig):
            return value
        raise ValueError("give {} for torchvision's defaults, or leave the key out for none of it")

    @model_validator(mode="after")
    def _one_crop(self) -> AugmentationConfig:
        if self.crop_padding and self.resized_crop is not None:
            raise ValueError(
                "crop_padding and resized_crop are two ways to crop: set crop_padding to 0, or "
                "leave resized_crop out"
            )
        return self


class ClassesConfig(Section):
    """Some of the classes of a data set; `[cat, dog]` is short for `{names: [cat, dog]}`."""

    names: list[int | str] | None = None
    """Names or numbers; the position in the list becomes the label."""
    first: int | None = Field(None, gt=1)
    """Instead: so many of the shuffled classes, as in LiResNet's Appendix F. A smaller number
    gives a part of the classes of a larger one."""
    seed: int = Field(0, ge=0)
    """Of the shuffle."""

    @field_validator("names", mode="before")
    @classmethod
    def _no_yaml_booleans(cls, names: Any) -> Any:
        for name in names if isinstance(names, list) else ():
            if isinstance(name, bool) or not isinstance(name, int | str):
                raise ValueError(f"{name!r} in it is no class: give numbers or quoted names")
        if isinstance(names, list) and len(names) < 2:
            raise ValueError("give two or more classes")
        return names

    @model_validator(mode="after")
    def _one_of_both(self) -> ClassesConfig:
        if (self.names is None) == (self.first is None):
            raise ValueError("give a list of classes, or {first: 100, seed: 0}")
        return self


class DataConfig(Section):
    """Where the images are, and how they are read.

    `train` and `val` take a .beton file or a source such as `digits`.
    """

    train: str | None = None
    val: str | None = None
    classes: ClassesConfig | None = None
    """Only these classes, in training and validation: a list, or `{first: 100, seed: 0}`."""
    backend: Literal["auto", "ffcv", "memory"] = "auto"
    """`auto`: FFCV for .beton files where it is installed, otherwise `memory`."""
    workers: int = Field(0, ge=0)
    """Loader threads a process; 0 takes the cores that there are, divided among local ranks."""
    reading: Literal["cached", "direct"] = "cached"
    """How FFCV's loader reads a .beton file: through the page cache, or past it, for files larger
    than the memory on a disk that is fast enough."""
    stage: str | None = None
    """A folder on a disk of the node, such as `$TMPDIR`; .beton files are copied there first."""
    augmentation: AugmentationConfig = AugmentationConfig()

    @field_validator("classes", mode="before")
    @classmethod
    def _list_of_names(cls, value: Any) -> Any:
        if value is None or isinstance(value, dict | ClassesConfig):
            return value
        if not isinstance(value, list):
            raise ValueError("give a list of classes, or {first: 100, seed: 0}")
        return {"names": value}
