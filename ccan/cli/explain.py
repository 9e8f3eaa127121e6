"""`ccan explain`: cases of a dataset with maps, accounts and what-ifs, as a folder and one report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccan.gallery import GalleryIndex
    from ccan.predictor import Predictor


def open_index(
    checkpoint: str, dataset: str, data: Path | None, options: Sequence[str]
) -> tuple[Predictor, GalleryIndex]:
    """The model and its index of a dataset, made or read from the cache, with a bar."""
    from tqdm import tqdm

    from ccan.data import load_dataset, read_options
    from ccan.gallery import index_dataset
    from ccan.predictor import Predictor

    predictor = Predictor.from_checkpoint(checkpoint)
    samples = load_dataset(dataset, data, **read_options(dataset, options))
    print(samples.summary())
    with tqdm(unit="step", leave=False) as bar:

        def progress(done: int, total: int, what: str) -> None:
            bar.total = total
            bar.set_description(what)
            bar.update(done - bar.n)

        return predictor, index_dataset(predictor, samples, progress=progress)
