"""A small dataset of coloured pictures and a small untrained model, for tests that need both on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ccan.config import ModelConfig, Recipe
from ccan.data.records import ReIDDataset, Sample
from ccan.model.network import build_ccan
from ccan.predictor import Predictor
from ccan.training.checkpoint import CheckpointInfo, save_checkpoint

SMALL_MODEL = ModelConfig(
    width_multiplier=0.125, embedding_dim=8, image_height=64, image_width=32, parts=2
)


def write_checkpoint(path: Path, seed: int = 0, config: ModelConfig = SMALL_MODEL) -> Path:
    """An untrained model as a checkpoint file; its embeddings have no common offset, so that images differ in them."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = build_ccan(config, 3)
        for branch in (model.global_branch, model.local_branch):
            if branch is not None:
                branch.head.fc1.bias.zero_()
    recipe = Recipe(name="small", model=config)
    save_checkpoint(path, model, CheckpointInfo(recipe, identities=(2, 4, 6)))
    return path


def small_predictor(folder: Path, seed: int = 0) -> Predictor:
    """The model of `write_checkpoint`, loaded."""
    return Predictor.from_checkpoint(write_checkpoint(folder / f"{seed}.safetensors", seed), "cpu")


def small_dataset(root: Path, identities: int = 3, cameras: int = 2) -> ReIDDataset:
    """One query and two gallery images of each identity in each camera, noise over a colour of the identity."""
    generator = np.random.default_rng(7)
    splits: dict[str, list[Sample]] = {"query": [], "gallery": []}
    for identity in range(1, identities + 1):
        colour = generator.integers(40, 200, 3)
        for camera in range(1, cameras + 1):
            for split, copy in (("query", 0), ("gallery", 1), ("gallery", 2)):
                path = root / split / f"{identity:04d}_c{camera}s1_{copy:06d}_01.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = generator.integers(0, 50, (70, 40, 3))
                Image.fromarray((colour + noise).astype(np.uint8)).save(path)
                splits[split].append(Sample(path, identity, camera))
    return ReIDDataset("small", root, (), tuple(splits["query"]), tuple(splits["gallery"]))
