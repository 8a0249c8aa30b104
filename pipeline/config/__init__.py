"""The typed configuration of a run: YAML file, then `--key value` from the command line.

Notable:
- Every key is declared here with its default; an unknown one is an error with the nearest known
  name.
- `config.yaml` in a run directory is written by `save` and read back by `load` without change.
"""

from pipeline.config.cluster import ClusterConfig
from pipeline.config.data import (
    AugmentationConfig,
    ClassesConfig,
    DataConfig,
    GeneratedConfig,
    RandAugmentConfig,
    ResizedCropConfig,
)
from pipeline.config.diffusion import (
    DiffusionConfig,
    FilterConfig,
    MonitorConfig,
    SamplingConfig,
)
from pipeline.config.reading import checked, first_difference, known_keys, load, parse, save
from pipeline.config.run import (
    CertificationConfig,
    CheckpointConfig,
    DeepSpeedConfig,
    EpsilonConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    RunConfig,
    TrainingConfig,
)

__all__ = [
    "AugmentationConfig",
    "CertificationConfig",
    "CheckpointConfig",
    "ClassesConfig",
    "ClusterConfig",
    "DataConfig",
    "DeepSpeedConfig",
    "DiffusionConfig",
    "EpsilonConfig",
    "FilterConfig",
    "GeneratedConfig",
    "ModelConfig",
    "MonitorConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "RandAugmentConfig",
    "ResizedCropConfig",
    "RunConfig",
    "SamplingConfig",
    "TrainingConfig",
    "checked",
    "first_difference",
    "known_keys",
    "load",
    "parse",
    "save",
]
