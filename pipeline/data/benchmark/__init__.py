"""Throughput of the training loaders, against torch's DataLoader with PIL."""

from pipeline.data.benchmark.contenders import Contender, Settings
from pipeline.data.benchmark.report import record, table
from pipeline.data.benchmark.turns import measure

__all__ = ["Contender", "Settings", "measure", "record", "table"]
