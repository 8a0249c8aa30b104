"""Data sets: reading sources, writing .beton files, the loaders of training and certification."""

from pipeline.data.base import BLOCK, BlockLoader, DatasetInfo, TrainLoader
from pipeline.data.loader import open_block_loader, open_train_loader

__all__ = [
    "BLOCK",
    "BlockLoader",
    "DatasetInfo",
    "TrainLoader",
    "open_block_loader",
    "open_train_loader",
]
