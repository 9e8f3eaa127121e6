"""`ccan evaluate`: a checkpoint's figures on a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from ccan.cli.judging import Judging
from ccan.config import EvalConfig
from ccan.data.records import Sample

if TYPE_CHECKING:
    from ccan.evaluation import FeatureSet
    from ccan.predictor import Predictor


@dataclass(frozen=True)
class Evaluate:
    """Rank a dataset's gallery for its queries: CMC, mAP, mINP."""

    data: Path | None = None
    """Folder of the dataset; not needed for --dataset demo."""
    dataset: str = "market1501"
    """Name of the dataset's layout; `demo` = the dashboard's own world, `auto` = recognise it."""
    options: tuple[str, ...] = ()
    """Options of the dataset's loader as name=value, for example box=labelled."""
    checkpoint: str = "demo"
    """A checkpoint file, a run folder, or `demo` for the bundled model."""
    device: str = "auto"
    """`auto`, or a torch device."""
    judging: Annotated[Judging, arg(name="")] = field(default_factory=Judging)
    """By which protocol, and what is reported."""
    eval: Annotated[EvalConfig, arg(name="")] = field(default_factory=EvalConfig)
    """How features are extracted and ranked."""

    def run(self) -> None:
        """Evaluate, print a table, write the files."""
        from ccan.data import load_dataset, read_options
        from ccan.predictor import Predictor

        with self.judging.outputs() as outputs:
            predictor = Predictor.from_checkpoint(self.checkpoint, self.device)
            options = read_options(self.dataset, self.options)
            dataset = load_dataset(self.dataset, self.data, **options)
            print(f"{dataset.summary()}\ndevice: {predictor.device}")
            columns = {name for sample in dataset.query for name in sample.metadata}
            self.judging.check(self.eval, columns, bool(dataset.multi_query))
            query = self._embed(predictor, dataset.query)
            gallery = self._embed(predictor, dataset.gallery)
            extra = None
            if self.judging.protocol == "multi-query" and dataset.multi_query:
                extra = self._embed(predictor, dataset.multi_query)
            self.judging.run(query, gallery, extra, self.eval, outputs)

    def _embed(self, predictor: Predictor, samples: Sequence[Sample]) -> FeatureSet:
        from ccan.evaluation import extract_features

        return extract_features(
            predictor.model,
            samples,
            batch_size=self.eval.batch_size,
            workers=self.eval.workers,
            device=predictor.device,
            progress=True,
            on_broken=self.eval.broken_images,
            flip=self.eval.flip,
        )
