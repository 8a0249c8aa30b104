"""The typed configuration of a run: YAML file, then `--key value` from the command line.

Notable:
- Every key is declared here with its default; an unknown one is an error with the nearest known
  name. The one open section is `model`: its further keys are the options of `build_model`, and
  `objective`'s those of the objective; both are checked where they are used.
- `training.batch_size` is the *global* batch, whatever the number of processes.
- `config.yaml` in a run directory is written by `save` and read back by `load` without change.
"""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipeline.types import Epsilon


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class ResizedCropConfig(_Section):
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


class RandAugmentConfig(_Section):
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


class AugmentationConfig(_Section):
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


class ClassesConfig(_Section):
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


class DataConfig(_Section):
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


class EpsilonConfig(_Section):
    """The training radius: a linear ramp, then flat (LiResNet, Appendix B.1)."""

    target: str = "36/255"
    """The radius to be certified; "36/255" or a decimal, an l2 norm in stored-image space."""
    start: float = Field(0.1, ge=0)
    """Factor on the target at the first step."""
    end: float = Field(2.0, gt=0)
    """Factor on the target from the end of the ramp on."""
    ramp: float = Field(0.5, ge=0, le=1)
    """Share of the training over which the factor grows."""

    @field_validator("target", mode="before")
    @classmethod
    def _readable(cls, value: Any) -> str:
        return Epsilon.parse(value).text


class OptimizerConfig(_Section):
    """NAdam with Lookahead, as one optimizer (LiResNet, Appendix B.1)."""

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


class TrainingConfig(_Section):
    """Length, batch and precision."""

    epochs: int = Field(1, gt=0)
    batch_size: int = Field(256, gt=0)
    accumulation: int = Field(1, gt=0)
    """Micro-batches a step; batch_size must be divisible by processes × accumulation."""
    warmup_epochs: float = Field(0, ge=0)
    """Linear warm-up of the learning rate; cosine decay to zero after it."""
    precision: Literal["fp32", "bf16"] = "fp32"
    validate_every: int = Field(1, ge=0)
    """Epochs between validations; 0 validates after the last epoch only."""
    log_every: int = Field(1, gt=0)
    """Steps between rows of metrics.jsonl and points in TensorBoard."""


class CheckpointConfig(_Section):
    """When to save and what to keep."""

    every_steps: int = Field(0, ge=0)
    """Steps between checkpoints; 0 saves at the end of each epoch only."""
    keep: int = Field(2, gt=0)
    """Newest checkpoints kept."""


class CertificationConfig(_Section):
    """The certification that ends a training run."""

    epsilons: list[str] = ["36/255", "72/255", "108/255", "1.0"]
    at_end: bool = True

    @field_validator("epsilons", mode="before")
    @classmethod
    def _readable(cls, values: Any) -> list[str]:
        if not isinstance(values, list | tuple) or not values:
            raise ValueError('give a list such as ["36/255", 0.25]')
        return [Epsilon.parse(value).text for value in values]


class RunConfig(_Section):
    """Everything that defines a run."""

    name: str
    """The run directory is `output`/`name`."""
    output: str = "runs"
    task: Literal["train", "certify"] = "train"
    seed: int = Field(0, ge=0)
    engine: Literal["accelerate"] = "accelerate"
    data: DataConfig = DataConfig()
    model: ModelConfig
    objective: ObjectiveConfig = ObjectiveConfig()
    epsilon: EpsilonConfig = EpsilonConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    certification: CertificationConfig = CertificationConfig()

    @property
    def directory(self) -> Path:
        """The run directory."""
        return Path(self.output) / self.name


def load(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """Read a config file and apply command-line overrides.

    Args:
        path: a YAML file.
        overrides: what the command line left over: `["--training.epochs", "5", "--seed=1"]`.
            Dashes and underscores are the same; values are read as YAML.

    Raises:
        ValueError: one sentence naming the file or key, the value and the mend.
    """
    if not path.is_file():
        raise ValueError(f"config file {path} does not exist{_near_file(path)}")
    try:
        tree = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(
            f"config file {path} is not YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(tree, dict):
        raise ValueError(f"config file {path} must be a mapping of keys to values")
    for key, value in _pairs(overrides or []):
        _set(tree, key, value)
    return parse(tree, source=str(path))


def parse(tree: dict[str, Any], source: str = "config") -> RunConfig:
    """Check a tree of plain values and make it a RunConfig.

    Raises:
        ValueError: as `load`.
    """
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as errors:
        raise ValueError(f"{source}: {_sentence(errors)}") from None


def save(config: RunConfig, path: Path) -> None:
    """Write `config`, defaults included, as YAML that `load` reads back to an equal value."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def first_difference(old: RunConfig, new: RunConfig, ignore: set[str]) -> str | None:
    """The first key whose value differs, as "training.epochs: 5 there, 6 here"; None if equal.

    Args:
        ignore: dotted keys, or whole sections, that may differ.
    """
    mine, theirs = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    for key in [*mine, *(key for key in theirs if key not in mine)]:
        if any(key == skip or key.startswith(skip + ".") for skip in ignore):
            continue
        before, now = mine.get(key, "nothing"), theirs.get(key, "nothing")
        if before != now:
            return f"{key}: {before} there, {now} here"
    return None


def _pairs(words: list[str]) -> list[tuple[str, Any]]:
    """Split `--key value` and `--key=value` words; a key without value is true."""
    pairs: list[tuple[str, Any]] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ValueError(f"argument {word!r}: expected --key value, e.g. --training.epochs 5")
        key, equals, text = word[2:].partition("=")
        if not equals:
            text = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        pairs.append((key.replace("-", "_"), value))
    return pairs


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    """Put `value` at a dotted key, e.g. `training.epochs`."""
    *sections, leaf = key.split(".")
    for section in sections:
        if tree.get(section) is None:  # not there, or an optional section that is off
            tree[section] = {}
        if not isinstance(tree[section], dict):
            raise ValueError(f"--{key}: {section!r} is a single value, not a section")
        tree = tree[section]
    tree[leaf] = value


def _sentence(errors: ValidationError) -> str:
    """The first error as one sentence: key, value, mend."""
    error = errors.errors()[0]
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_near_key(key)}"
    if error["type"] == "missing":
        return f"key {key!r} is missing: add it to the file or give --{key} VALUE"
    message = error["msg"].removeprefix("Value error, ")
    return f"key {key!r} has the value {error['input']!r}: {message[0].lower()}{message[1:]}"


def known_keys(section: type[BaseModel] = RunConfig, prefix: str = "") -> list[str]:
    """Every key that a config may have, dotted, in order of declaration."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        inner = [
            part
            for part in (field.annotation, *get_args(field.annotation))  # a section may be optional
            if isinstance(part, type) and issubclass(part, BaseModel)
        ]
        if inner:
            keys += known_keys(inner[0], f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _near_key(key: str) -> str:
    """`; did you mean ...?`, comparing whole keys first and then their last parts."""
    known = known_keys()
    known += sorted({name.rpartition(".")[0] for name in known if "." in name})  # sections
    same_leaf = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    near = same_leaf or difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not near:
        leaves = {name.split(".")[-1]: name for name in known}
        near = [
            leaves[leaf]
            for leaf in difflib.get_close_matches(key.split(".")[-1], leaves, n=1, cutoff=0.6)
        ]
    return f"; did you mean {near[0]!r}?" if near else ""


def _near_file(path: Path) -> str:
    """`; did you mean ...?` among the YAML files beside a missing one."""
    if not path.parent.is_dir():
        return ""
    names = [other.name for other in path.parent.glob("*.yaml")]
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
