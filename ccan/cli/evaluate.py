"""`ccan evaluate`: a checkpoint's figures on a dataset."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from ccan.cli.output import Outputs
from ccan.config import EvalConfig

if TYPE_CHECKING:
    from ccan.evaluation import EvaluationReport


@dataclass(frozen=True)
class Evaluate:
    """Rank a dataset's gallery for its queries: CMC, mAP, mINP under the single-query protocol."""

    data: Path | None = None
    """Folder of the dataset; not needed for --dataset demo."""
    dataset: str = "market1501"
    """Name of the dataset's layout; `demo` = the dashboard's own world."""
    checkpoint: str = "demo"
    """A checkpoint file, a run folder, or `demo` for the bundled model."""
    json: str | None = None
    """Write the figures to this file; `-` = standard output."""
    per_query: str | None = None
    """Write every query's AP, INP and first match to this .npz or .json file; `-` = standard output, as JSON."""
    device: str = "auto"
    """`auto`, or a torch device."""
    eval: Annotated[EvalConfig, arg(name="")] = field(default_factory=EvalConfig)
    """How features are extracted and ranked."""

    def run(self) -> None:
        """Evaluate, print a table, write the files."""
        with Outputs(self.json, self.per_query) as outputs:
            report = self._evaluate()
            print(report.summary())
            if self.per_query is not None:
                with outputs.file(self.per_query, ".json") as path:
                    report.save_per_query(path)
                print(f"per-query results: {self.per_query}")
            outputs.json(self.json, report.to_dict())

    def _evaluate(self) -> EvaluationReport:
        from ccan.data import load_dataset
        from ccan.evaluation import evaluate_features, extract_features
        from ccan.predictor import Predictor

        predictor = Predictor.from_checkpoint(self.checkpoint, self.device)
        dataset = load_dataset(self.dataset, self.data)
        print(f"{dataset.summary()}\ndevice: {predictor.device}")
        query, gallery = (
            extract_features(
                predictor.model,
                samples,
                batch_size=self.eval.batch_size,
                workers=self.eval.workers,
                device=predictor.device,
                progress=True,
            )
            for samples in (dataset.query, dataset.gallery)
        )
        return evaluate_features(query, gallery, distance=self.eval.distance, ap=self.eval.ap)
