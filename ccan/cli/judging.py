"""What `ccan evaluate` and `ccan score` share: the protocol, what is reported of it, and where it goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ccan.cli.output import Outputs
from ccan.config import EvalConfig
from ccan.data.records import JUNK
from ccan.errors import ConfigError

if TYPE_CHECKING:
    from ccan.evaluation import EvaluationReport, FeatureSet


@dataclass(frozen=True)
class Judging:
    """By which protocol, and what of it is reported."""

    protocol: Literal["single-query", "multi-query", "single-shot"] = "single-query"
    """Every query alone (paper); all images of its identity and camera together (Market-1501's gt_bbox); or one
    gallery image an identity, drawn ten times (CUHK03's classic protocol)."""
    pooling: Literal["mean", "max"] = "mean"
    """How multi-query joins the images of one query."""
    rule: Literal["classic", "toolkit"] = "classic"
    """What single-shot ignores: all images of the query's camera, or only those of its identity in its camera."""
    expand_query: int = 0
    """Average query expansion with so many neighbours; 0 = none."""
    augment_gallery: int = 0
    """Database-side augmentation with so many neighbours; 0 = none."""
    alpha: float = 3.0
    """Exponent of the neighbours' weights in both; 0 = all alike."""
    max_rank: int | None = None
    """Length of the CMC curve; with it the whole curve is in the JSON."""
    by: tuple[str, ...] = ()
    """Also average by these: camera, or any column of the images' metadata."""
    camera_pairs: bool = False
    """Also rank each gallery camera's images alone: mAP from every camera to every other."""
    intervals: bool = False
    """Also give 95 % bootstrap intervals, resampling identities."""
    verify: tuple[float, ...] = ()
    """Also judge pairs (same person or not): the thresholds for these false-match rates, for example 0.001."""
    json: str | None = None
    """Write the figures to this file; `-` = standard output."""
    per_query: str | None = None
    """Write every query's AP, INP and first match to this .npz or .json file; `-` = standard output, as JSON."""

    def outputs(self) -> Outputs:
        """Where the results go."""
        return Outputs(self.json, self.per_query)

    def run(
        self,
        query: FeatureSet,
        gallery: FeatureSet,
        extra: FeatureSet | None,
        settings: EvalConfig,
        outputs: Outputs,
    ) -> None:
        """Judge, print, write. `extra` are the images for multi-query; None where there are none to ask with."""
        self.check(settings, {*query.metadata}, extra is not None)
        query, gallery = self._prepared(query, gallery, extra)
        if self.protocol == "single-shot":
            self._single_shot(query, gallery, settings, outputs)
            return
        from ccan.evaluation import ReRanking, evaluate_features

        ranking: dict[str, Any] = {
            "distance": settings.distance,
            "ap": settings.ap,
            "rerank": ReRanking() if settings.rerank else None,
        }
        report = evaluate_features(query, gallery, max_rank=self.max_rank, **ranking)
        print(report.summary())
        figures = report.to_dict(self.by) | self._steps(settings)
        if self.max_rank is not None:
            figures["cmc"] = report.cmc.tolist()
        self._print_slices(report)
        figures |= self._camera_pairs(query, gallery, ranking)
        figures |= self._intervals(report)
        figures |= self._verification(query, gallery, settings)
        if self.per_query is not None:
            with outputs.file(self.per_query, ".json") as path:
                report.save_per_query(path)
            print(f"per-query results: {self.per_query}")
        outputs.json(self.json, figures)

    def check(self, settings: EvalConfig, columns: set[str], extra: bool) -> None:
        """Raises: ConfigError for options that do not go together, before any work is done.

        Args:
            settings: what the ranking is done by.
            columns: names of the queries' metadata.
            extra: whether there are images for multi-query.
        """
        if self.protocol == "multi-query" and not extra:
            raise ConfigError(
                "multi-query asks with further images of each query, and there are none here "
                "(Market-1501 has them in gt_bbox); use another --protocol"
            )
        asked = {
            "--per-query": self.per_query is not None,
            "--rerank": settings.rerank,
            "--by": bool(self.by),
            "--camera-pairs": self.camera_pairs,
            "--intervals": self.intervals,
            "--verify": bool(self.verify),
        }
        if self.protocol == "single-shot" and any(asked.values()):
            given = ", ".join(name for name, is_given in asked.items() if is_given)
            raise ConfigError(f"single-shot gives a CMC curve over repeats only; leave out {given}")
        unknown = [name for name in self.by if name not in {"camera", *columns}]
        if unknown:
            known = ", ".join(["camera", *sorted(columns)])
            raise ConfigError(f"there is no column {unknown[0]!r} to average by; there is {known}")
        if any(not 0 <= rate < 1 for rate in self.verify):
            raise ConfigError(
                f"--verify takes false-match rates from 0 to below 1, got {self.verify}"
            )
        if self.verify and settings.rerank:
            raise ConfigError(
                "--verify judges pairs by their own distance, which re-ranking replaces; leave out one of both"
            )
        if self.per_query not in (None, "-") and Path(self.per_query).suffix not in (
            ".npz",
            ".json",
        ):
            raise ConfigError(
                f"per-query results are written as .npz or .json, got {self.per_query!r}"
            )

    def _prepared(
        self, query: FeatureSet, gallery: FeatureSet, extra: FeatureSet | None
    ) -> tuple[FeatureSet, FeatureSet]:
        """The features after everything that happens before ranking."""
        from ccan.evaluation import augment_database, average_query_expansion, pool_multi_query

        junk = gallery.identities == JUNK
        if junk.any() and (self.augment_gallery or self.expand_query):
            gallery = gallery.select(~junk)  # it is nobody's neighbour
        if extra is not None and self.protocol == "multi-query":
            query, gallery = pool_multi_query(query, extra, self.pooling), gallery.normalized()
        if self.augment_gallery:
            gallery = augment_database(gallery, self.augment_gallery, self.alpha)
            query = query.normalized()  # as the augmented gallery is
        if self.expand_query:
            query = average_query_expansion(query, gallery, self.expand_query, self.alpha)
            gallery = gallery.normalized()  # as the expanded queries are
        return query, gallery

    def _steps(self, settings: EvalConfig) -> dict[str, Any]:
        """What happened to the features before they were ranked, where anything did."""
        steps: dict[str, Any] = {}
        if self.protocol == "multi-query":
            steps["multi_query"] = self.pooling
        if settings.flip:
            steps["flip"] = True
        if self.expand_query:
            steps["expand_query"] = {"neighbours": self.expand_query, "alpha": self.alpha}
        if self.augment_gallery:
            steps["augment_gallery"] = {"neighbours": self.augment_gallery, "alpha": self.alpha}
        for name, value in steps.items():
            print(f"{name}: {value}")
        return {"features": steps} if steps else {}

    def _single_shot(
        self, query: FeatureSet, gallery: FeatureSet, settings: EvalConfig, outputs: Outputs
    ) -> None:
        from ccan.evaluation import evaluate_single_shot

        length = {} if self.max_rank is None else {"max_rank": self.max_rank}
        report = evaluate_single_shot(
            query, gallery, rule=self.rule, distance=settings.distance, **length
        )
        print(report.summary())
        outputs.json(self.json, report.to_dict() | self._steps(settings))

    def _print_slices(self, report: EvaluationReport) -> None:
        for column in self.by:
            print(f"\nby {column:<20}{'queries':>8}{'mAP':>8}{'mINP':>8}{'rank1':>8}")
            for one in report.slices(column):
                shares = "".join(f"{100 * v:>8.2f}" for v in (one.mAP, one.mINP, one.rank1))
                print(f"   {one.value:<20}{one.valid:>8}{shares}")

    def _camera_pairs(
        self, query: FeatureSet, gallery: FeatureSet, ranking: dict[str, Any]
    ) -> dict[str, Any]:
        if not self.camera_pairs:
            return {}
        from ccan.evaluation import camera_pairs

        found = camera_pairs(query, gallery, **ranking)
        print(f"\n{found.summary()}")
        return {"camera_pairs": found.to_dict()}

    def _intervals(self, report: EvaluationReport) -> dict[str, Any]:
        if not self.intervals:
            return {}
        from ccan.evaluation import bootstrap

        intervals = bootstrap(report)
        print(f"\n{intervals.summary()}")
        return {"intervals": intervals.to_dict()}

    def _verification(
        self, query: FeatureSet, gallery: FeatureSet, settings: EvalConfig
    ) -> dict[str, Any]:
        if not self.verify:
            return {}
        from ccan.evaluation import verify

        found = verify(query, gallery, distance=settings.distance)
        thresholds = [
            {
                "false_match_rate": rate,
                "threshold": found.threshold_for(rate),
                "tpr": found.tpr_at(rate),
            }
            for rate in self.verify
        ]
        print(f"\nsame person or not: AUC {100 * found.auc:.2f}, EER {100 * found.eer:.2f}")
        print(f"{'false-match rate':>20}{'threshold':>12}{'found':>8}")
        for one in thresholds:
            rate, threshold, tpr = one.values()
            print(f"{rate:>20g}{threshold:>12.4f}{100 * tpr:>8.2f}")
        return {"verification": found.to_dict() | {"thresholds": thresholds}}
