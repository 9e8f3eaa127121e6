"""Training: one step, the loop around it, checkpoints that are whole, and the run folder."""

from ccan.training.checkpoint import CheckpointInfo, load_model, resolve_checkpoint
from ccan.training.loop import FitResult, fit
from ccan.training.step import training_step

__all__ = [
    "CheckpointInfo",
    "FitResult",
    "fit",
    "load_model",
    "resolve_checkpoint",
    "training_step",
]
