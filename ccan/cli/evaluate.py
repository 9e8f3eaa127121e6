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
    from ccan.training.engine import Engine


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
        from ccan.training.engine import Engine, end_processes

        with self.judging.outputs() as outputs:
            engine = Engine(self.device)
            predictor = Predictor.from_checkpoint(self.checkpoint, str(engine.device))
            options = read_options(self.dataset, self.options)
            dataset = load_dataset(self.dataset, self.data, **options)
            if engine.is_first:
                print(f"{dataset.summary()}\ndevice: {predictor.device}")
            columns = {name for sample in dataset.query for name in sample.metadata}
            self.judging.check(self.eval, columns, bool(dataset.multi_query))
            query = self._embed(engine, predictor, dataset.query)
            gallery = self._embed(engine, predictor, dataset.gallery)
            extra = None
            if self.judging.protocol == "multi-query" and dataset.multi_query:
                extra = self._embed(engine, predictor, dataset.multi_query)
            end_processes()
            if engine.is_first:
                self.judging.run(query, gallery, extra, self.eval, outputs)

    def _embed(self, engine: Engine, predictor: Predictor, samples: Sequence[Sample]) -> FeatureSet:
        from ccan.training.sharding import extract_together

        return extract_together(
            engine, predictor.model, samples, self.eval, progress=engine.is_first
        )
