"""Everything that the page reads, made once: the model, the index, its evaluation. Handlers get ids only.

What costs a forward or a ranking is kept for a while, by all that it depends on; what takes seconds is a job beside the
page (`app.jobs`). Without a network (features of another model) there are images, rankings and scores, and no maps.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from app.elsewhere import Asked, Elsewhere
from app.images import Described, Recent, decode
from app.jobs import Job, Jobs
from app.judged import Judged
from app.lessons import Question, cells, code
from app.maps import Mapped
from app.masks import read_mask
from app.runs import Runs
from app.selection import Scoring, Selection
from ccan.cases import Cases
from ccan.data import load_dataset, read_options
from ccan.diagnosis import CheckpointComparison, compare_checkpoints
from ccan.diagnosis.checkpoints import OUTCOMES
from ccan.errors import ConfigError, DatasetError, ProtocolError
from ccan.evaluation import (
    EvaluationReport,
    FeatureSet,
    Ranking,
    ReRanking,
    evaluate_features,
    rank_gallery,
)
from ccan.evaluation.features import describe, mirror_average
from ccan.evaluation.ranking import rank_distances
from ccan.evaluation.rerank import reranked_distances
from ccan.explain.account import stream_terms
from ccan.explain.attention import (
    AttentionRecord,
    SlotGeometry,
    record_of,
    silent_slots,
    slot_geometry,
    slot_names,
)
from ccan.explain.counterfactual import hide
from ccan.explain.embedding import embedding_maps
from ccan.explain.faithfulness import RetrievalMargin, faithfulness_curves
from ccan.explain.gradcam import grad_cams, identity_score, similarity_score
from ccan.explain.maps import Picture, cam_pictures, energy_pictures, image_maps, ledger_pictures
from ccan.explain.parts import PartAlignment, StreamActivation, align_parts, stream_activations
from ccan.explain.similarity import CrossImage, cross_image_attention, ledger
from ccan.explain.trace import Trace, stream_names, trace
from ccan.explain.weighting import (
    PartVectors,
    QueryGrams,
    gram_matrices,
    part_vectors,
    query_grams,
    without_each_part,
)
from ccan.gallery import GalleryIndex, Progress, index_dataset, index_features
from ccan.model.fast import fast_for_inference
from ccan.predictor import Predictor
from ccan.reports.whole import ReportOptions, write_explanations
from ccan.search import Found, SearchIndex

RANKINGS_KEPT, TRACES_KEPT, MAPS_KEPT, GRAMS_KEPT = 64, 8, 160, 8
DOCUMENTED_TRUST = Path(__file__).parent.parent / "docs" / "trust"
CELL = 8
"""Pixels of the network's input, each way, of a cell that can be painted."""
PLAIN = Scoring()


@dataclass(frozen=True)
class Painted:
    """A query with a region hidden: its ranking, its distance from the query as it is, and where its streams fire."""

    ranking: Ranking
    moved: float
    maps: dict[str, Picture]


class Store(Judged):
    """The dashboard's data.

    Args:
        predictor: the model; None for features of another one.
        index: the model's view of a dataset.
        report: the evaluation of that index.
        checkpoint: what the model is called on the page.
        cases: file of tags, notes and verdicts; None = where those of this dataset are kept.
    """

    def __init__(
        self,
        predictor: Predictor | None,
        index: GalleryIndex,
        report: EvaluationReport,
        checkpoint: str,
        cases: Path | None = None,
    ) -> None:
        super().__init__(index, report, cases)
        self.runs = Runs(Path("runs"))
        self.elsewhere: Elsewhere | None = None
        self.questions: Recent[Any] = Recent(256)
        self.brief = Jobs()
        self.other: Store | None = None
        self.predictor, self.checkpoint = predictor, checkpoint
        self.slots: list[str] = slot_names(predictor.config) if predictor else []
        self.silent = silent_slots(predictor.model) if predictor else ()
        self.streams: list[str] = stream_names(predictor.model) if predictor else []
        self.trust = measured_trust(checkpoint) if predictor else {}
        self._rankings: Recent[Ranking] = Recent(RANKINGS_KEPT)
        self._traces: Recent[Trace] = Recent(TRACES_KEPT)
        self._maps: Recent[Any] = Recent(MAPS_KEPT)
        self._grams: Recent[QueryGrams] = Recent(GRAMS_KEPT)

    @classmethod
    def open(
        cls,
        checkpoint: str | Path = "demo",
        dataset: str = "demo",
        data: Path | None = None,
        options: Sequence[str] = (),
        *,
        cache: Path | None = None,
        cases: Path | None = None,
        progress: bool | Progress = True,
    ) -> Store:
        """Load the model, read the dataset, index and evaluate it; the first time takes longest.

        `progress` shows a bar, or is told.

        Raises: CCANError of any kind, for people to read.
        """
        predictor = Predictor.from_checkpoint(checkpoint)
        samples = load_dataset(dataset, data, **read_options(dataset, options))
        with _Bar(progress is True) as bar:
            told = progress if callable(progress) else bar.update
            index = index_dataset(predictor, samples, cache=cache, progress=told)
        report = evaluate_features(index.query, index.gallery)
        return cls(predictor, index, report, str(checkpoint), cases)

    @classmethod
    def of_features(
        cls,
        path: Path,
        images: Path | None = None,
        *,
        cache: Path | None = None,
        cases: Path | None = None,
        progress: bool = True,
    ) -> Store:
        """Features that any model made, and their pictures where there is a folder of them. Raises: CCANError."""
        with _Bar(progress) as bar:
            index = index_features(path, images, cache=cache, progress=bar.update)
        report = evaluate_features(index.query, index.gallery)
        return cls(None, index, report, path.name, cases)

    # The network

    @property
    def network(self) -> Predictor:
        """The model. Raises: ConfigError where there are features only."""
        if self.predictor is None:
            raise ConfigError("there is no network here, only its features")
        return self.predictor

    @cached_property
    def _fast(self) -> Any:
        return fast_for_inference(self.network.model)

    def prepared(self, image: str) -> Tensor:
        """An image as the network takes it, (1, 3, H, W), where the network is."""
        return self._prepared(self.photo(image))

    def _prepared(self, photo: Image.Image) -> Tensor:
        return self.network.prepare(photo)[None].to(self.network.device)

    def trace(self, image: str) -> Trace:
        """One forward of an image."""
        return self._traces.get_or_make(
            image, lambda: trace(self.network.model, self.prepared(image))
        )

    def attention(self, image: str) -> AttentionRecord:
        """The maps of every slot for an image."""

        def make() -> AttentionRecord:
            found = self.trace(image)
            return record_of(self.network.config, found.output, found.slots)

        return self._maps.get_or_make((self.checkpoint, image, "attention"), make)

    def activations(self, image: str) -> dict[str, StreamActivation]:
        """The last map of every stream for an image."""
        return self._maps.get_or_make(
            (self.checkpoint, image, "activations"),
            lambda: stream_activations(self.network.config, self.trace(image)),
        )

    def energy(self, image: str) -> dict[str, Picture]:
        """Energy of the streams' last maps over the image: ``G energy``, ``parts energy``."""
        return self._maps.get_or_make(
            (self.checkpoint, image, "energy"),
            lambda: energy_pictures(self.network.model, self.trace(image)),
        )

    def alignment(self, query: str, match: str) -> PartAlignment:
        """Which strips of two images show the same."""

        def make() -> PartAlignment:
            model = self.network.model
            maps = embedding_maps(model)
            return align_parts(model, maps, self.trace(query), self.trace(match))

        return self._maps.get_or_make((self.checkpoint, query, match, "alignment"), make)

    def across(self, query: str, match: str) -> dict[str, CrossImage]:
        """Where the query's part streams co-fire with the other image."""
        return self._maps.get_or_make(
            (self.checkpoint, query, match, "across"),
            lambda: cross_image_attention(self.network.model, self.trace(query), self.trace(match)),
        )

    def family(self, query: str, match: str, target: str) -> dict[str, Picture]:
        """Grad-CAM's family and the ledger for a query: of its similarity to an image, or of its likeliest identity."""

        def make() -> dict[str, Picture]:
            model, image = self._fast, self.prepared(query)
            mine, other = self.trace(query), self.trace(match)
            score = (
                similarity_score(other.output.descriptor[0])
                if target == "similarity"
                else identity_score(self.likeliest_class(query))
            )
            pictures: dict[str, Picture] = {}
            for method, cam in grad_cams(model, image, score, level="middle").items():
                pictures |= cam_pictures(cam, method)
            if target == "similarity":
                found = ledger(self.network.model, embedding_maps(self.network.model), mine, other)
                pictures |= ledger_pictures(self.network.model, found, mine)
            return pictures

        return self._maps.get_or_make((self.checkpoint, query, match, target, "family"), make)

    def likeliest_class(self, image: str) -> int:
        """The training identity, as a class label, that both branches together find most like an image."""
        output = self.trace(image).output
        logits = [x for x in (output.global_logits, output.local_logits) if x is not None]
        return int(torch.stack(logits).sum(dim=0)[0].argmax())

    # Painting

    @property
    def mask_shape(self) -> tuple[int, int]:
        """Rows and columns of the cells that can be painted; (0, 0) without a network."""
        if self.predictor is None:
            return 0, 0
        config = self.predictor.config
        return config.image_height // CELL, config.image_width // CELL

    def mask(self, hidden: str) -> NDArray[np.bool_]:
        """The painted cells, (rows, columns). Raises: ValueError for digits that are no mask of this input."""
        return read_mask(hidden, *self.mask_shape)

    def painted(self, query: str, hidden: str) -> Painted:
        """The query with its painted cells hidden from the network."""

        def make() -> Painted:
            mask = np.kron(self.mask(hidden), np.ones((CELL, CELL), bool))
            found = trace(self.network.model, hide(self.prepared(query), mask))
            descriptor = found.output.descriptor.cpu()
            moved = float((descriptor - self._described(query, PLAIN)).norm())
            ranking = rank_gallery(self._probe(query, descriptor), self.index.gallery)
            return Painted(ranking, moved, energy_pictures(self.network.model, found))

        return self._maps.get_or_make((self.checkpoint, query, hidden, "painted"), make)

    # Uploads

    def add_upload(self, name: str, data: bytes) -> str:
        """Embed a picture and hold it for a while → its id. Raises: DatasetError if it is no picture or too large."""
        photo = decode(name, data)
        image = self._prepared(photo)
        found = trace(self.network.model, image)
        plain = found.output.descriptor
        mirrored = mirror_average(
            plain, describe(self._fast, image.flip(-1)).clone(), len(self.index.branches)
        )
        vectors = part_vectors(embedding_maps(self.network.model), found)
        described = Described(plain[0].cpu().numpy(), mirrored[0].cpu().numpy(), vectors)
        return self.hold(name, photo, described)

    def vectors(self, image: str) -> PartVectors:
        """What an image's distances are accounted by."""
        place = self.place(image)
        if place is None:
            return self.upload(image).described.vectors
        return self.index.vectors(place[0], [place[1]])

    # Rankings

    @property
    def can_flip(self) -> bool:
        """Whether there are descriptors of the mirrored images."""
        return bool(self.index.mirrored)

    def _sides(self, flip: bool) -> tuple[FeatureSet, FeatureSet]:
        if flip and self.can_flip:
            return self.index.mirrored["query"], self.index.mirrored["gallery"]
        return self.index.query, self.index.gallery

    def _described(self, image: str, scoring: Scoring) -> Tensor:
        """Descriptor of an image, (1, D)."""
        place = self.place(image)
        if place is None:
            found = self.upload(image).described
            return torch.from_numpy(found.mirrored if scoring.flip else found.descriptor)[None]
        query, gallery = self._sides(scoring.flip)
        return (query if place[0] == "query" else gallery).features[place[1]][None]

    def _probe(self, query: str, descriptor: Tensor) -> FeatureSet | Tensor:
        """A descriptor with what is known of the query; bare for an upload."""
        if self.is_upload(query):
            return descriptor[0]
        return self.index.query.select([self.query_rows[query]]).with_features(descriptor)

    def ranking(self, query: str, scoring: Scoring = PLAIN) -> Ranking:
        """The whole ranked gallery of a query, with marks; those of an upload are unknown.

        Re-ranking that is not ready yet is left out (`reranking`), and so it is for an upload.
        """
        if scoring.rerank and (self.is_upload(query) or self._reranked(scoring.flip) is None):
            scoring = Scoring(scoring.flip, False, scoring.weights)

        def rank() -> Ranking:
            if not self.is_upload(query) and query not in self.query_rows:
                raise DatasetError(f"there is no query {query[:80]!r} in this dataset")
            probe = self._probe(query, self._described(query, scoring))
            gallery = self._sides(scoring.flip)[1]
            if scoring.weights:
                first, *parts = self._weights(scoring.weights)
                squared = self.grams(query).distances(parts or None, first)
                return self._by_distances(probe, np.sqrt(squared))
            if scoring.rerank:
                distances: Any = self._reranked(scoring.flip)
                row = self.query_rows[query]
                return self._by_distances(probe, distances(row, row + 1)[0].cpu().numpy())
            return rank_gallery(probe, gallery)

        return self._rankings.get_or_make((query, scoring), rank)

    def _weights(self, weights: tuple[float, ...]) -> tuple[float, ...]:
        """w_G first, whatever branches there are."""
        return weights if "G" in self.streams else (1.0, *weights)

    def _by_distances(
        self, probe: FeatureSet | Tensor, distances: NDArray[np.floating[Any]]
    ) -> Ranking:
        known = isinstance(probe, FeatureSet)
        facts = probe if isinstance(probe, FeatureSet) else FeatureSet(probe[None], [0], [-1])
        return rank_distances(facts, self.index.gallery, distances, known=known)

    def reranking(self, flip: bool) -> Job[Any]:
        """The neighbourhoods of all images, which re-ranking needs; they are worked out once, beside the page."""
        query, gallery = self._sides(flip)
        return self.jobs.begin(
            ("rerank", flip), lambda _: reranked_distances(query, gallery, ReRanking())
        )

    def _reranked(self, flip: bool) -> Any:
        job = self.reranking(flip)
        job.wait(0.2)
        return job.value

    def grams(self, query: str) -> QueryGrams:
        """What sliders need of a query: made once, then no feature is read again."""
        gallery = self._gallery_vectors
        return self._grams.get_or_make(
            query, lambda: query_grams(self.vectors(query), gallery, self._gallery_grams)
        )

    @cached_property
    def _gallery_vectors(self) -> PartVectors:
        """In float32, as they are kept: a product with 23,000 images must not take a second."""
        found = self.index.vectors("gallery", np.zeros(0, np.int64))
        parts = direction = None
        if found.parts is not None and self.index.bias is not None:
            shares = self.index.parts["gallery"]
            bias = self.index.bias.expand(len(shares), 1, -1)
            parts = torch.cat([shares, bias], dim=1).numpy()
        if found.direction is not None:
            direction = self.index.gallery.features[:, : found.direction.shape[1]].numpy()
        return PartVectors(parts, direction)

    @cached_property
    def _gallery_grams(self) -> NDArray[np.float64] | None:
        parts = self._gallery_vectors.parts
        return None if parts is None else gram_matrices(parts).astype(np.float64)

    def knocked_out(self, query: str) -> dict[str, Ranking]:
        """The ranking as it is, and without each stream. Raises: DatasetError for an upload."""
        if query not in self.query_rows:
            raise DatasetError("nobody knows who is on an upload: no AP to compare")

        def make() -> dict[str, Ranking]:
            probe = self.index.query.select([self.query_rows[query]])
            return without_each_part(self.grams(query), probe, self.index.gallery)

        return self._maps.get_or_make((self.checkpoint, query, "knocked out"), make)

    def terms(self, query: str, images: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """The account of a query's distances to some images, stream → (N,); empty for features of another model."""
        if not self.index.branches or not images:
            return {}
        mine, theirs = self.vectors(query), [self.vectors(image) for image in images]

        def joined(name: str) -> Any:
            values = [getattr(one, name) for one in theirs]
            return None if values[0] is None else np.concatenate(values)

        return stream_terms(mine, PartVectors(joined("parts"), joined("direction")))

    def distance(self, first: str, second: str) -> float:
        """Euclidean distance of two images' descriptors."""
        return float((self._described(first, PLAIN) - self._described(second, PLAIN)).norm())

    def nearest(self, query: str) -> str:
        """The first ranked gallery image that counts."""
        ranking = self.ranking(query)
        return self.gallery_ids[ranking.order[int(np.argmax(ranking.positions > 0))]]

    def match(self, selection: Selection) -> str:
        """The image beside the query: the chosen one, or the nearest that counts."""
        return selection.match or self.nearest(selection.query)

    def placed(self, image: str, mapped: Mapped) -> dict[str, list[int]]:
        """About where an upload lies on the maps; {} for an image that is on them."""
        if not self.is_upload(image):
            return {}
        return self._maps.get_or_make(
            (image, mapped.key, "placed"), lambda: mapped.placed(self._described(image, PLAIN)[0])
        )

    # Another gallery

    def set_gallery(self, index: SearchIndex) -> None:
        """Look for the queries in an index too. Raises: as `Elsewhere`."""
        self.elsewhere = Elsewhere(index, self.predictor, self.index.gallery.features.shape[1])

    def found_elsewhere(self, selection: Selection) -> Job[Found]:
        """The nearest images of the other gallery, with the same filters. Raises: ConfigError without one."""
        if self.elsewhere is None:
            raise ConfigError("there is no other gallery; start with --gallery INDEX")
        sample = self.sample(selection.query)
        identities = () if selection.identity is None else (selection.identity,)
        own = None if sample is None else (sample.identity, sample.camera)
        name = None if sample is None else self.elsewhere.index.name_of(sample.path)
        asked = Asked(selection.query, selection.cameras, identities, own)
        descriptor = self._described(selection.query, PLAIN)
        return self.elsewhere.search(self.brief, asked, descriptor, name)

    # Questions

    def lesson_job(self, asked: Question) -> Job[Picture | None]:
        """The model's account of a question's query and its match, over the query; None without a network."""

        def work(_: Any) -> Picture | None:
            if self.predictor is None:
                return None
            model, match = self.network.model, asked.candidates[asked.right]
            mine, other = self.trace(asked.query), self.trace(match)
            found = ledger(model, embedding_maps(model), mine, other)
            pictures = ledger_pictures(model, found, mine)
            return pictures.get("parts ledger", next(iter(pictures.values())))

        return self.brief.begin((asked.query, asked.candidates[asked.right]), work)

    def lesson_map(self, asked: Question) -> NDArray[np.float64] | None:
        """The same by the cells of a region; None without a network, or where it cannot be made (its job says why)."""
        job = self.lesson_job(asked)
        job.wait(20)
        return None if job.value is None else cells(job.value)

    @cached_property
    def codes(self) -> dict[str, str]:
        """What stands for a query in a link → its id."""
        return {code(query): query for query in self.query_ids}

    # Two checkpoints

    @cached_property
    def compared(self) -> CheckpointComparison:
        """This model (b, now) against the other one (a, before). Raises: ConfigError without another one."""
        if self.other is None:
            raise ConfigError("there is no second checkpoint to compare with; start with --compare")
        return compare_checkpoints(self.other.report, self.report)

    def set_other(self, other: Store) -> None:
        """Compare with another model. Raises: ProtocolError if it was judged on other images."""
        if (other.query_ids, other.gallery_ids) != (self.query_ids, self.gallery_ids):
            raise ProtocolError(
                f"both checkpoints must be judged on the same images; got {len(self.query_ids)} queries and "
                f"{len(self.gallery_ids)} gallery images against {len(other.query_ids)} and {len(other.gallery_ids)}"
            )
        self.other = other
        _ = self.compared  # what cannot be compared is said at the start

    @property
    def has_twin(self) -> bool:
        """Whether this is the bundled model on its own world, so that the bundled ablation can stand beside it."""
        return (self.checkpoint, self.dataset.name) == ("demo", "demo")

    def load_twin(self) -> Job[bool]:
        """Load the bundled model without attention, beside the page. Raises: ConfigError beside another model."""
        if not self.has_twin:
            raise ConfigError("only the bundled model has a twin; start with --compare CHECKPOINT")

        def work(report: Any) -> bool:
            self.set_other(Store.open("demo-plain", cases=self.cases.path, progress=report))
            return True

        return self.jobs.begin("twin", work)

    def _outcome(self, name: str) -> NDArray[np.bool_]:
        if name not in OUTCOMES:
            raise KeyError(name)
        found = np.zeros(len(self.query_ids), bool)
        found[self.compared.rows[self.compared.outcomes == name]] = True
        return found

    _CHOSEN: ClassVar[dict[str, Callable[[Any, str], NDArray[np.bool_]]]] = {
        **Judged._CHOSEN,
        "outcome": _outcome,
    }

    # The report of tagged queries

    def found_report(self, blur: bool) -> Job[bytes] | None:
        """The report of what is tagged now, if somebody has asked for it."""
        return self.jobs.found(self._report_name(blur))

    def _report_name(self, blur: bool) -> tuple[str, bool, str]:
        remarks = {one: _remarks(self.cases, one) for one in self.subset("tagged")}
        return "report", blur, json.dumps(sorted(remarks.items()))

    def case_report(self, blur: bool) -> Job[bytes]:
        """The one-file report of the tagged queries, with what was said about them."""
        queries = list(self.subset("tagged"))
        remarks = {self.query_rows[one]: _remarks(self.cases, one) for one in queries}

        def work(report: Any) -> bytes:
            with tempfile.TemporaryDirectory() as folder:
                options = ReportOptions(
                    Path(folder), blur_faces=blur, checkpoint=Path(self.checkpoint).name
                )
                done = count()
                path = write_explanations(
                    self.network,
                    self.index,
                    list(remarks),
                    options,
                    remarks=remarks,
                    say=lambda what: report(next(done), len(remarks), what),
                )
                return path.read_bytes()

        if not remarks:
            raise ConfigError("no query is tagged yet: there is nothing to report")
        return self.jobs.begin(self._report_name(blur), work)

    # Faithfulness

    def faithfulness(self, query: str, match: str) -> Job[dict[str, float]]:
        """How far each map of this query holds what it says, tested on this query alone: map → score."""

        model = self._fast

        def work(report: Any) -> dict[str, float]:
            report(0, 1, "hiding what each map names, little by little")
            row = self.index.query.select([self.query_rows[query]])
            margin = RetrievalMargin(row, self.index.gallery)
            image = self.prepared(query)
            maps = image_maps(model, image, self.prepared(match))
            curves = faithfulness_curves(model, image[0], maps, margin)
            return {name: one.score for name, one in curves.items()}

        if query not in self.query_rows:
            raise DatasetError("nobody knows who is on an upload: there is no margin to test on")
        return self.jobs.begin(("faithfulness", query, match), work)

    # Attention slots

    def slot(self, slot: str) -> str:
        """A slot by its name; "" = the first. Raises: ConfigError without any attention."""
        if not self.slots:
            raise ConfigError("this network has no attention to look at")
        return slot or self.slots[0]

    def geometry(self, slot: str) -> SlotGeometry:
        """Where the positions of a slot lie; "" = the first slot. Raises: ConfigError without any attention."""
        return slot_geometry(self.network.config, self.slot(slot))

    def positions(self, slot: str) -> int:
        """Number of positions of a slot."""
        geometry = self.geometry(slot)
        return geometry.rows * geometry.columns


def _remarks(cases: Cases, image: str) -> list[str]:
    """What was said about an image, for the report."""
    tags = ", ".join(cases.tags(image))
    notes = [
        f"Note{f' by {one.who}' if one.who else ''}: {one.value}" for one in cases.notes(image)
    ]
    return [f"Tags: {tags}", *notes] if tags else notes


def measured_trust(checkpoint: str) -> dict[str, tuple[float, str]]:
    """What `ccan trust` found of a checkpoint's maps, name → (score, verdict); empty where nobody measured.

    It is looked for in the folder ``trust`` beside the checkpoint; the bundled model's stands in the documentation.
    """
    path = Path(checkpoint)
    folder = path if path.is_dir() else path.parent
    beside = DOCUMENTED_TRUST if checkpoint == "demo" else folder / "trust"
    try:
        columns = json.loads((beside / "faithfulness.json").read_text("utf-8"))["columns"]
        names, scores, verdicts = (columns[name] for name in ("map", "score", "verdict"))
        return {
            str(name): (float(score), str(verdict))
            for name, score, verdict in zip(names, scores, verdicts, strict=True)
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


class _Bar:
    """A progress bar that appears with the first step, so that nothing is shown where nothing is to do."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, done: int, total: int, doing: str) -> None:
        if self.bar is None:
            self.bar = tqdm(total=total, unit="step", disable=not self.wanted)
        self.bar.set_description(doing, refresh=False)
        self.bar.update(done - self.bar.n)
