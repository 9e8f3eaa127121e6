"""The options of commands that look at a checkpoint's view of a dataset, and how that is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccan.gallery import GalleryIndex
    from ccan.predictor import Predictor


@dataclass(frozen=True)
class Indexed:
    """Which checkpoint, on which dataset."""

    data: Path | None = None
    """Folder of the dataset; not needed for --dataset demo."""
    dataset: str = "demo"
    """Name of the dataset's layout; `demo` = the dashboard's own world, `auto` = recognise it."""
    options: tuple[str, ...] = ()
    """Options of the dataset's loader as name=value, for example box=labelled."""
    checkpoint: str = "demo"
    """A checkpoint file, a run folder, or `demo` for the bundled model."""

    def open(self) -> tuple[Predictor, GalleryIndex]:
        """The model and its index of the dataset, made or read from the cache, with a bar."""
        from ccan.data import load_dataset, read_options
        from ccan.gallery import index_dataset
        from ccan.predictor import Predictor

        predictor = Predictor.from_checkpoint(self.checkpoint)
        samples = load_dataset(self.dataset, self.data, **read_options(self.dataset, self.options))
        print(samples.summary())
        with progress_bar("step") as progress:
            return predictor, index_dataset(predictor, samples, progress=progress)


@contextmanager
def progress_bar(unit: str = "img") -> Iterator[Callable[[int, int, str], None]]:
    """A bar on standard error, as a function to call with (done, in all, what is being done)."""
    from tqdm import tqdm

    with tqdm(unit=unit, leave=False, delay=1) as bar:

        def progress(done: int, total: int, what: str) -> None:
            bar.total = total
            bar.set_description(what, refresh=False)
            bar.update(done - bar.n)

        yield progress
