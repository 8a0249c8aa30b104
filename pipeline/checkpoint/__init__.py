"""Atomic, verified checkpoints. Nothing is ever unpickled."""

from pipeline.checkpoint.optimizer_state import optimizer_tensors, restore_optimizer
from pipeline.checkpoint.rng import gather_rng_states, restore_rng_state
from pipeline.checkpoint.store import Checkpoint, load_latest, save_checkpoint

__all__ = [
    "Checkpoint",
    "gather_rng_states",
    "load_latest",
    "optimizer_tensors",
    "restore_optimizer",
    "restore_rng_state",
    "save_checkpoint",
]
