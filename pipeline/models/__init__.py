"""Networks that can be trained and certified, by name."""

from pipeline.models.network import LipschitzNetwork
from pipeline.models.registry import build_model, list_models, model_of

__all__ = ["LipschitzNetwork", "build_model", "list_models", "model_of"]
