"""Embeddings on a plane: t-SNE of G, L and both together from one start, and how far the picture may be trusted.

The work is done by scikit-learn in a child process, so that it can be cancelled; scikit-learn tells nothing meanwhile,
so progress is the time that has passed against an estimate. Results are kept in the cache by a hash of all that they
depend on.

A map of this kind keeps neighbours and little else: distances between far groups, sizes of groups and the empty space
mean nothing. `trustworthiness` and `agreement` say how well neighbours are kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ccan.errors import CCANError, ConfigError, ShapeError
from ccan.files import atomic_path, cache_folder, write_text
from ccan.tables import Table

if TYPE_CHECKING:
    from pandas import DataFrame

    from ccan.evaluation.feature_set import FeatureSet

FORMAT = 2
"""Raised when the same settings would give another map."""
LIMIT = 5000
"""Points of a map unless more are asked for."""
NEIGHBOURS = 10
COMPONENTS = 50
"""PCA before t-SNE."""
JOINT = "joint"
MAPS = ("G", "L", JOINT)
_JUNK = -1
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""A sum over several threads has no fixed order, and t-SNE magnifies its rounding: one thread makes one map."""

Values = NDArray[np.float64]
Progress = Callable[[float, float, str], None]
"""Called with (seconds passed, seconds estimated, what is being done)."""


class Cancelled(CCANError):
    """The work was cancelled by its caller."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Maps of n images.

    Attributes:
        rows: (n,) rows of the features that are shown, ascending.
        points: map (``G``, ``L``, ``joint``) → (n, 2) float32, in arbitrary units.
        trustworthiness: map → from 0 to 1, how few of a point's neighbours on the map are none in the embedding.
        agreement: map → (n,) share of each point's k nearest in the embedding that are among its k nearest on the map.
        neighbours: map → (n, k) places in ``rows`` of each point's k nearest in the embedding, nearest first (k = 10,
            or all others where they are fewer).
    """

    rows: NDArray[np.int64]
    points: Mapping[str, NDArray[np.float32]]
    trustworthiness: Mapping[str, float]
    agreement: Mapping[str, Values]
    neighbours: Mapping[str, NDArray[np.int64]]

    def table(self) -> Table:
        """Row, and each map's x, y and agreement."""
        columns: dict[str, NDArray[Any]] = {"row": self.rows}
        for name, points in self.points.items():
            columns |= {f"{name} x": points[:, 0], f"{name} y": points[:, 1]}
            columns[f"{name} agreement"] = self.agreement[name]
        trust = ", ".join(f"{name} {value:.3f}" for name, value in self.trustworthiness.items())
        return Table("projection", columns, f"t-SNE; trustworthiness: {trust}")

    def to_frame(self) -> DataFrame:
        """`table` as a pandas DataFrame. Raises: ConfigError if pandas is missing."""
        return self.table().to_frame()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything by name, as `numpy.savez` takes it: ``rows``, and MAP points, trust, agreement, neighbours."""
        found: dict[str, NDArray[Any]] = {"rows": self.rows}
        for name, points in self.points.items():
            found |= {f"{name} points": points, f"{name} agreement": self.agreement[name]}
            found[f"{name} neighbours"] = self.neighbours[name]
            found[f"{name} trust"] = np.array(self.trustworthiness[name])
        return found

    def save(self, path: str | Path) -> None:
        """Write `table` (.csv) or `arrays` (.npz), whole or not at all. Raises: ConfigError for another ending."""
        path = Path(path)
        if path.suffix == ".csv":
            write_text(path, self.table().to_csv())
        elif path.suffix == ".npz":
            _write_arrays(path, self.arrays())
        else:
            raise ConfigError(
                f"a map is saved as .csv or .npz, got {path.name!r}; change its ending"
            )


def _write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def project(
    features: FeatureSet,
    *,
    branches: int = 1,
    limit: int | None = LIMIT,
    perplexity: float = 30.0,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> Projection:
    """The maps of some features, from the cache or made by a child process.

    Args:
        features: N images; junk is left out.
        branches: 2 for the descriptors of a network with both branches: then G, L and joint are mapped; 1: joint alone.
        limit: more images than this are thinned, identities alike (`balanced_rows`); None = all.
        perplexity: of t-SNE; lowered to a third of the points where they are few.
        seed: of t-SNE and of what is thinned.
        cache: where maps are kept (`ccan.files.cache_folder`).
        progress: told four times a second.
        cancel: ends the work when it is set.

    Raises: ShapeError for fewer than 4 images that are not junk, or an odd width with two branches; ConfigError for
    settings out of range or without scikit-learn; Cancelled; CCANError if the child fails.
    """
    _check(features, branches, limit, perplexity, seed)
    rows = balanced_rows(features.identities, limit, seed)
    if len(rows) < 4:
        raise ShapeError(
            f"a map needs at least 4 images that are not junk, got {len(rows)}; add images, or list the distances of "
            "so few in a table"
        )
    chosen = features.features[rows.tolist()].double().cpu().numpy()
    views = views_of(chosen, branches)
    key = _key(chosen, rows, branches, perplexity, seed)
    path = (cache or cache_folder()) / "projections" / f"{key}.npz"
    found = _read(path, key, rows, views)
    if found is None:
        made = _in_child(views, perplexity, seed, progress, cancel)
        _write_arrays(path, {"key": np.array(key), "rows": rows, **made})
        found = _read(path, key, rows, views)
    if found is None:
        raise CCANError(f"the map at {path} cannot be read back; is the disk sound?")
    return found


def _check(
    features: FeatureSet, branches: int, limit: int | None, perplexity: float, seed: int
) -> None:
    if branches not in (1, 2):
        raise ConfigError(f"branches must be 1 or 2, got {branches}")
    if branches == 2 and features.features.shape[1] % 2:
        raise ShapeError(
            f"descriptors of two branches have an even width, got {features.features.shape[1]}; pass branches=1"
        )
    if (limit is not None and limit < 4) or not perplexity > 0 or not 0 <= seed < 2**32:
        raise ConfigError(
            "limit must be at least 4, perplexity above 0, seed at least 0 and below 2³², "
            f"got {limit}, {perplexity}, {seed}"
        )
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ConfigError('maps need scikit-learn: pip install "ccan[explain]"') from error


def _key(
    chosen: Values, rows: NDArray[np.int64], branches: int, perplexity: float, seed: int
) -> str:
    """Hash of everything that the maps depend on."""
    settings = {
        "format": FORMAT,
        "shape": chosen.shape,
        "branches": branches,
        "perplexity": float(perplexity),
        "seed": int(seed),
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(chosen).tobytes() + rows.tobytes())
    return digest.hexdigest()


def balanced_rows(identities: ArrayLike, limit: int | None, seed: int = 0) -> NDArray[np.int64]:
    """Rows of at most ``limit`` images, shared among identities as evenly as can be, ascending; junk (-1) never.

    In rounds each identity gives one image, in an order that the seed decides; distractors (0) count as one identity.

    Raises: ConfigError for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, got {limit}; pass None for all rows")
    people = np.asarray(identities)
    rows = np.flatnonzero(people != _JUNK)
    if limit is None or len(rows) <= limit:
        return rows
    generator = np.random.default_rng(seed)
    rows = generator.permutation(rows)
    _, person = np.unique(people[rows], return_inverse=True)
    rows = rows[np.argsort(person, kind="stable")]
    sizes = np.bincount(person)
    round_ = np.concatenate([np.arange(size) for size in sizes])
    turn = np.repeat(generator.permutation(len(sizes)), sizes)
    return np.sort(rows[np.lexsort((turn, round_))[:limit]])


def views_of(descriptors: Values, branches: int) -> dict[str, Values]:
    """What each map is made of: rows of unit length, so that Euclidean neighbours are those of the cosine."""
    half = descriptors.shape[1] // 2
    parts = {"G": descriptors[:, :half], "L": descriptors[:, half:]} if branches == 2 else {}
    return {name: _unit(values) for name, values in {**parts, JOINT: descriptors}.items()}


def _unit(values: Values) -> Values:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def shared_start(views: Mapping[str, Values]) -> NDArray[np.float32]:
    """Where all maps begin: the first two principal components of ``joint``, the first with standard deviation 1e-4."""
    centred = views[JOINT] - views[JOINT].mean(axis=0)
    u, s, v = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(
        v[np.arange(len(v)), np.abs(v).argmax(axis=1)]
    )  # an axis has no sign of its own
    start = np.zeros((len(centred), 2))
    start[:, : min(2, len(s))] = (u * s * signs)[:, :2]
    spread = start[:, 0].std()
    return (start / spread * 1e-4 if spread > 0 else start).astype(np.float32)


def estimated_seconds(points: int, maps: int = 3) -> float:
    """Seconds that the child takes, about.

    Fitted to processor seconds with OMP_NUM_THREADS=1, as the child runs, for 512 numbers an image: 300 points took
    2 s for one map and 3 s for three, 1,000 took 4 and 9 s, 3,000 took 14 and 37 s.
    """
    return 1.5 + maps * 2.65 * (points / 1000) ** 1.32


def _in_child(
    views: Mapping[str, Values],
    perplexity: float,
    seed: int,
    progress: Progress | None,
    cancel: threading.Event | None,
) -> dict[str, Any]:
    """Run this file's `_work` in another process. Raises: Cancelled; CCANError if it fails."""
    began, estimate = time.monotonic(), estimated_seconds(len(views[JOINT]), len(views))
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "in.npz", Path(folder) / "out.npz"
        arrays: dict[str, Any] = {f"view {name}": values for name, values in views.items()}
        np.savez(given, perplexity=perplexity, seed=seed, **arrays)
        with (Path(folder) / "errors").open("w+", errors="replace") as errors:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "ccan.projection", str(given), str(made)],
                stderr=errors,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD, "PYTHONPATH": _import_path()},
            )
            try:
                while child.poll() is None:
                    if cancel is not None and cancel.is_set():
                        raise Cancelled("the map was cancelled")
                    if progress is not None:
                        progress(
                            time.monotonic() - began, estimate, "placing neighbours side by side"
                        )
                    time.sleep(0.05 if progress is None else 0.25)
            finally:
                if child.poll() is None:
                    child.kill()
                    child.wait()
            errors.seek(0)
            said = errors.read().strip().splitlines()
        if child.returncode != 0 or not made.is_file():
            raise CCANError(
                f"the map could not be made: {said[-1] if said else f'exit code {child.returncode}'}"
            )
        with np.load(made, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}


def _import_path() -> str:
    """Where this process imports from, for the child; the working folder, whatever lies there, is not among it."""
    home = str(Path(__file__).resolve().parents[1])
    folders = [os.path.abspath(folder) for folder in sys.path if folder]
    return os.pathsep.join(folders if home in folders else [*folders, home])


def _work(given: Path, made: Path) -> None:
    """What the child does: every map, its trust, and its true neighbours."""
    with np.load(given, allow_pickle=False) as arrays:
        views = {
            name.removeprefix("view "): arrays[name]
            for name in arrays.files
            if name.startswith("view ")
        }
        perplexity, seed = float(arrays["perplexity"]), int(arrays["seed"])
    start = shared_start(views)
    found: dict[str, Any] = {}
    for name, values in views.items():
        points = _tsne(values, start, perplexity, seed)
        found |= {f"{name} {key}": value for key, value in _judged(values, points).items()}
    _write_arrays(made, found)


def _tsne(
    values: Values, start: NDArray[np.float32], perplexity: float, seed: int
) -> NDArray[np.float32]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count = min(COMPONENTS, *values.shape)
    varied = bool(np.ptp(values, axis=0).any())  # PCA divides by the variance
    fewer = values[:, :count]
    if varied and values.shape[1] > count:
        fewer = PCA(count, random_state=seed).fit_transform(values)
    init: Any = start
    tsne = TSNE(
        perplexity=min(perplexity, (len(values) - 1) / 3),
        init=init,
        learning_rate="auto",
        random_state=seed,
    )
    return tsne.fit_transform(fewer.astype(np.float32)).astype(np.float32)


def _judged(values: Values, points: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    from sklearn.manifold import trustworthiness

    count = min(NEIGHBOURS, len(values) - 1)
    true, shown = nearest(values, count), nearest(points.astype(np.float64), count)
    shared = [len(np.intersect1d(a, b)) / count for a, b in zip(true, shown, strict=True)]
    within = max(1, min(NEIGHBOURS, (len(values) - 1) // 2))
    return {
        "points": points,
        "agreement": np.array(shared),
        "neighbours": true,
        "trust": np.array(trustworthiness(values, points, n_neighbors=within)),
    }


def nearest(values: Values, count: int) -> NDArray[np.int64]:
    """Places of each row's nearest other rows, (n, count), nearest first."""
    from sklearn.neighbors import NearestNeighbors

    _, found = NearestNeighbors(n_neighbors=count + 1).fit(values).kneighbors(values)
    own = found == np.arange(len(values))[:, None]
    own[~own.any(axis=1), -1] = True  # among equals a row may not find itself
    return found[~own].reshape(len(values), count)


def _read(
    path: Path, key: str, rows: NDArray[np.int64], views: Mapping[str, Values]
) -> Projection | None:
    """A finished map, or None if there is none, it is damaged, or it is of other features or settings."""
    n, k = len(rows), min(NEIGHBOURS, len(rows) - 1)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            points = {name: arrays[f"{name} points"] for name in views}
            agreement = {name: arrays[f"{name} agreement"] for name in views}
            neighbours = {name: arrays[f"{name} neighbours"].astype(np.int64) for name in views}
            trust = {name: float(arrays[f"{name} trust"]) for name in views}
            whole = str(arrays["key"]) == key and np.array_equal(arrays["rows"], rows)
    except Exception:  # whatever is wrong with it: it is made again
        return None
    for name in views:
        whole &= points[name].shape == (n, 2) and points[name].dtype == np.float32
        whole &= agreement[name].shape == (n,) and neighbours[name].shape == (n, k)
        whole &= bool(np.isfinite(points[name]).all() and np.isfinite(trust[name]))
        whole &= bool(((agreement[name] >= 0) & (agreement[name] <= 1)).all())
        whole &= bool(((neighbours[name] >= 0) & (neighbours[name] < n)).all())
    return Projection(rows, points, trust, agreement, neighbours) if whole else None


def place(
    projection: Projection,
    features: FeatureSet,
    new: ArrayLike,
    map: str = JOINT,
    neighbours: int = NEIGHBOURS,
) -> Values:
    """Where new images lie on a map, about: the mean of their nearest neighbours' places, weighted by similarity.

    A map has no formula for what it has not seen, so this is a guess and should be drawn as one. One that
    equals an image of the map (similarity 1 to rounding) lies exactly on that point; one that is like none of them (no
    similarity above 0) lies at the plain mean of its neighbours.

    Args:
        projection: of these features.
        features: as they were mapped.
        new: descriptors (D,) or (M, D), a tensor or an array.
        map: which map.
        neighbours: how many speak for a place; weights are cosine similarities, negative ones 0.

    Returns: (M, 2). Raises: ShapeError for another width, an unknown map, or features with fewer rows than were
    mapped; ProtocolError for NaN or infinity; ConfigError for fewer than 1 neighbour.
    """
    if map not in projection.points:
        raise ShapeError(f"expected one of the maps {', '.join(projection.points)}, got {map!r}")
    if neighbours < 1:
        raise ConfigError(f"neighbours must be at least 1, got {neighbours}")
    if len(features) <= projection.rows.max():
        raise ShapeError(
            f"expected the features that were mapped, more than {projection.rows.max()} rows, got {len(features)}"
        )
    shown = features.features[projection.rows.tolist()].double().cpu().numpy()
    probes = _descriptors(new, shown.shape[1])
    branches = 2 if "G" in projection.points else 1
    mine, theirs = views_of(probes, branches)[map], views_of(shown, branches)[map]
    return _weighted_places(mine @ theirs.T, projection.points[map].astype(np.float64), neighbours)


def _descriptors(new: ArrayLike, width: int) -> Values:
    """New descriptors as (M, width) finite numbers."""
    import torch

    from ccan.evaluation.feature_set import check_features

    rows = torch.as_tensor(new).double()
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ShapeError(f"expected descriptors (M, {width}), got {tuple(rows.shape)}")
    return check_features(rows).cpu().numpy()


def _weighted_places(similarity: Values, points: Values, neighbours: int) -> Values:
    """Means of the most similar points, similarity (M, n), points (n, 2) → (M, 2)."""
    count = min(neighbours, len(points))
    best = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    weights = np.take_along_axis(similarity, best, axis=1).clip(min=0)
    weights[weights[:, 0] >= 1 - 1e-9, 1:] = 0  # the very image: no other speaks
    weights[weights.sum(axis=1) == 0] = 1
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("mk,mkc->mc", weights, points[best])


def main(arguments: Sequence[str]) -> None:
    """The child: two paths, what is given and what is to be made."""
    _work(Path(arguments[0]), Path(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
