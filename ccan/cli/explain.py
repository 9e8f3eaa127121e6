"""`ccan explain`: chosen queries from all sides, as a folder and one page; and how commands open an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccan.gallery import GalleryIndex
    from ccan.predictor import Predictor


@dataclass(frozen=True)
class Explain:
    """Explain rankings: where the network looked, why an image is ahead, what would change it; as one page."""

    out: Path
    """Folder for the page, the figures (.png, .svg) and the numbers (.npz, .csv)."""
    query: tuple[str, ...] = ()
    """File names of queries."""
    hardest: int = 4
    """So many of the hardest queries besides."""
    data: Path | None = None
    """Folder of the dataset; not needed for --dataset demo."""
    dataset: str = "demo"
    """Name of the dataset's layout; `demo` = the dashboard's own world, `auto` = recognise it."""
    options: tuple[str, ...] = ()
    """Options of the dataset's loader as name=value, for example box=labelled."""
    checkpoint: str = "demo"
    """A checkpoint file, a run folder, or `demo` for the bundled model."""
    top: int = 8
    """Images of each ranking strip."""
    remove: bool | None = None
    """Ask which stream's removal repairs a query: a pass over the gallery; by default unless it is large."""
    interactive: bool = False
    """Put in figures that answer to the pointer (plotly.js, 5 MB)."""
    blur_faces: bool = False
    """Blur the head strip of every picture."""

    def run(self) -> None:
        """Study, write, say where."""
        from ccan.reports.whole import ReportOptions, choose_queries, write_explanations

        predictor, index = open_index(self.checkpoint, self.dataset, self.data, self.options)
        rows = choose_queries(index, self.query, self.hardest)
        options = ReportOptions(
            self.out, self.top, self.interactive, self.blur_faces, self.checkpoint
        )
        path = write_explanations(predictor, index, rows, options, remove=self.remove)
        print(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)")


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
    with tqdm(unit="step", leave=False, delay=1) as bar:

        def progress(done: int, total: int, what: str) -> None:
            bar.total = total
            bar.set_description(what, refresh=False)
            bar.update(done - bar.n)

        return predictor, index_dataset(predictor, samples, progress=progress)
