"""Atomic, verified checkpoints, written in shares and in the background. Nothing is unpickled."""

from pipeline.checkpoint.fragments import Fragment, Part, SavedState, WholeState
from pipeline.checkpoint.loading import Checkpoint, load_chosen, load_latest
from pipeline.checkpoint.model_state import load_model
from pipeline.checkpoint.optimizer_state import optimizer_tensors, restore_optimizer
from pipeline.checkpoint.rng import gather_rng_states, restore_rng_state
from pipeline.checkpoint.saver import Saver

__all__ = [
    "Checkpoint",
    "Fragment",
    "Part",
    "SavedState",
    "Saver",
    "WholeState",
    "gather_rng_states",
    "load_chosen",
    "load_latest",
    "load_model",
    "optimizer_tensors",
    "restore_optimizer",
    "restore_rng_state",
]
