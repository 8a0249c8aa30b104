"""The section `data`: images, their classes, reading, augmentation, generated images."""

from __future__ import annotations

import math
from fractions import Fraction
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


class GeneratedConfig(Section):
    """Generated images in every batch beside the real ones (LiResNet, Section 5.1, Appendix H)."""

    path: str | list[str]
    """A .beton file or a source such as `npz:PATH`; or several .beton files: a list, a folder of
    them, or a pattern such as `generated/part_*.beton`, read in order of their names."""
    ratio: str = "1:1"
    """Real to generated images in every batch: `1:3` has three generated ones for each real one. A
    plain number is generated images for each real one."""
    augmentation: AugmentationConfig | None = None
    """Of the generated images; None: that of the real ones without RandAugment."""
    sha256: str | None = None
    """Of the set. A run writes down what it found; given here, another set is refused."""

    @field_validator("path")
    @classmethod
    def _not_empty(cls, value: str | list[str]) -> str | list[str]:
        if not value:
            raise ValueError("give a .beton file, several, or a source such as npz:PATH")
        return value

    @field_validator("ratio", mode="before")
    @classmethod
    def _whole_numbers(cls, value: Any) -> str:
        """`real:generated` in lowest terms."""
        real, colon, generated = str(value).partition(":")
        try:
            share = Fraction(generated) / Fraction(real) if colon else Fraction(real)
        except (ValueError, ZeroDivisionError):
            raise ValueError(
                "write real:generated, such as 1:1 or 1:3, or the number of generated images for "
                "each real one, above 0"
            ) from None
        if share <= 0 or (colon and Fraction(real) <= 0):
            raise ValueError(
                "both parts must be above 0: to train without generated images leave "
                "data.generated out"
            )
        return f"{share.denominator}:{share.numerator}"

    @property
    def parts(self) -> tuple[int, int]:
        """Real and generated images of the smallest whole batch: (1, 3) for `1:3`."""
        real, generated = self.ratio.split(":")
        return int(real), int(generated)


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
    generated: GeneratedConfig | None = None
    """Generated images beside the real ones of `train`; an epoch stays a pass over `train`."""

    @field_validator("classes", mode="before")
    @classmethod
    def _list_of_names(cls, value: Any) -> Any:
        if value is None or isinstance(value, dict | ClassesConfig):
            return value
        if not isinstance(value, list):
            raise ValueError("give a list of classes, or {first: 100, seed: 0}")
        return {"names": value}

    @property
    def generated_augmentation(self) -> AugmentationConfig:
        """What is done to generated images; RandAugment only if it is asked for them."""
        if self.generated is None or self.generated.augmentation is None:
            return self.augmentation.model_copy(update={"randaugment": None})
        return self.generated.augmentation
