"""An evaluation whose work is dealt to the training processes: images to embed, then queries to rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ccan.config import EvalConfig
from ccan.data.records import Sample
from ccan.evaluation import EvaluationReport, FeatureSet, evaluate_features, extract_features
from ccan.evaluation.features import feature_set_of
from ccan.evaluation.report import join_reports
from ccan.model.network import CCAN
from ccan.training.engine import Engine


def extract_together(
    engine: Engine,
    model: CCAN,
    samples: Sequence[Sample],
    settings: EvalConfig,
    progress: bool = False,
) -> FeatureSet:
    """Every process embeds its share of the images; each gets all descriptors, in the order of the samples.

    Raises: DatasetError as `extract_features`.
    """

    def extract(share: Sequence[Sample]) -> FeatureSet:
        return extract_features(
            model,
            share,
            batch_size=settings.batch_size,
            workers=settings.workers,
            device=engine.device,
            progress=progress,
            on_broken=settings.broken_images,
            flip=settings.flip,
        )

    if engine.processes == 1:
        return extract(samples)
    share = samples[engine.rank :: engine.processes]
    own = extract(share) if share else None
    found: dict[str, np.ndarray] = {}
    if own is not None and own.names is not None:
        found = dict(zip(own.names, own.features.numpy(), strict=True))
    together: dict[str, np.ndarray] = {}
    for part in engine.collected([found]):
        together |= part
    kept = [sample for sample in samples if str(sample.path) in together]
    features = np.stack([together[str(sample.path)] for sample in kept])
    return feature_set_of(torch.from_numpy(features), kept)


def evaluate_together(
    engine: Engine,
    model: CCAN,
    query: Sequence[Sample],
    gallery: Sequence[Sample],
    settings: EvalConfig,
) -> EvaluationReport:
    """Figures of a model; each process ranks its share of the queries, and each gets the whole report."""
    asked, shown = (
        extract_together(engine, model, samples, settings) for samples in (query, gallery)
    )
    rows = np.arange(engine.rank, len(asked), engine.processes)
    own = None
    if len(rows):
        own = evaluate_features(
            asked.select(rows), shown, distance=settings.distance, ap=settings.ap
        )
    if engine.processes == 1:
        assert own is not None
        return own
    parts = engine.collected([(rows, own)])
    reports = [report for _, report in parts if report is not None]
    order = np.argsort(np.concatenate([rows for rows, report in parts if report is not None]))
    return join_reports(reports).select(order)
