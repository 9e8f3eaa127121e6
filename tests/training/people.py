"""A folder of tiny people for training tests: each identity is one colour, each image another shade of it."""

from pathlib import Path

import numpy as np
from PIL import Image

from ccan.config import DataConfig, ModelConfig, OptimConfig, Recipe, TrainConfig
from ccan.data.records import ReIDDataset, Sample


def tiny_dataset(folder: Path, identities: int = 6, images: int = 4) -> ReIDDataset:
    """identities × images pictures of 24×48 pixels, two cameras; half of the images are query or gallery too."""
    generator = np.random.default_rng(5)
    samples = []
    for identity in range(1, identities + 1):
        colours = generator.integers(40, 216, (3, 1, 3))  # head, body, legs
        for shot in range(images):
            camera = 1 + shot % 2
            pixels = np.repeat(np.repeat(colours, 16, axis=0), 24, axis=1)
            pixels = pixels + generator.integers(-20, 20, pixels.shape) + 10 * camera
            path = folder / f"{identity:04d}_c{camera}s1_{shot:06d}_00.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
            samples.append(Sample(path, identity, camera))
    query = tuple(sample for sample in samples if sample.path.name.endswith("_000000_00.png"))
    gallery = tuple(sample for sample in samples if sample not in query)
    return ReIDDataset("tiny", folder, tuple(samples), query, gallery)


def tiny_recipe(**changes: object) -> Recipe:
    """A network of a few thousand weights that trains an epoch in a second; `changes` go to TrainConfig."""
    values = {"epochs": 3, "initial_weights": "none", "device": "cpu"} | changes
    return Recipe(
        name="tiny",
        model=ModelConfig(
            embedding_dim=16,
            parts=2,
            image_height=32,
            image_width=32,
            width_multiplier=0.05,
        ),
        data=DataConfig(
            identities_per_batch=3, images_per_identity=2, erasing_from_epoch=1, workers=0
        ),
        optim=OptimConfig(learning_rate=1e-3),
        train=TrainConfig(**values),  # type: ignore[arg-type]
    )
