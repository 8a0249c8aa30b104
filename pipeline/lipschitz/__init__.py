"""Norms of linear maps: the training estimate (power iteration) and the certified bounds."""

from pipeline.lipschitz.conv import certified_conv2d_norm
from pipeline.lipschitz.dense import certified_dense_norm

__all__ = ["certified_conv2d_norm", "certified_dense_norm"]
