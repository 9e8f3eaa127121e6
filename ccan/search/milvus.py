"""Milvus as the engine of a search: embedded in a folder (milvus-lite), or a server that is reached by URL.

Milvus holds descriptors, identities and cameras and filters by them; candidates come back with their vectors, and their
distances are measured again in float64, so that a FLAT index ranks exactly as the search in this process does.

Letters: Q queries, G gallery images, D numbers of a descriptor, K candidates.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ccan.config import SearchConfig
from ccan.data.records import JUNK
from ccan.errors import ConfigError, SearchError
from ccan.evaluation.feature_set import FeatureSet
from ccan.search.interface import Near, Vectors, Where, rounding, squared_differences

if TYPE_CHECKING:
    from pymilvus import MilvusClient

TOKEN = "CCAN_MILVUS_TOKEN"
"""Environment variable with the server's token, `user:password` or an API key; never written anywhere."""
CONNECT_SECONDS, ANSWER_SECONDS, LOAD_SECONDS = 5, 60, 600
MOST = 16_384
"""Candidates that Milvus gives at most."""
INSERT_BYTES, ANSWER_BYTES = 8 * 2**20, 32 * 2**20
SEGMENT = 100_000
"""Images that milvus-lite indexes together; a server's segments are larger."""


@dataclass(frozen=True)
class Place:
    """Where Milvus is: a server's address (`SearchConfig.uri`), or the file of an embedded one."""

    uri: str | None
    database: Path

    def __str__(self) -> str:
        return self.uri or str(self.database)


def settings_of(config: SearchConfig, count: int) -> dict[str, int]:
    """What Milvus' index of so many images is built and searched with, by Milvus' own names."""
    if config.kind == "FLAT":
        return {}
    if config.kind == "HNSW":
        return {"M": 16, "efConstruction": 200, "ef": config.effort or 128}
    together = min(count, SEGMENT)
    cells = max(1, min(int(4 * together**0.5), together // 39))  # k-means wants 39 images a cell
    return {"nlist": cells, "nprobe": min(cells, config.effort or max(8, cells // 16))}


class MilvusEngine:
    """A collection of one Milvus.

    Args:
        client: an open connection.
        place: of what.
        collection: name of the collection, which is loaded.
        kind, settings: of its index.
        width: D.
        longest: largest length of a descriptor in it.
    """

    most = MOST

    def __init__(
        self,
        client: MilvusClient,
        place: Place,
        collection: str,
        kind: str,
        settings: Mapping[str, int],
        width: int,
        longest: float,
    ) -> None:
        self._client, self._place, self._collection = client, place, collection
        self._settings, self.longest = dict(settings), longest
        self.kind, self.width = kind, width

    @property
    def exact(self) -> bool:
        """Whether nothing nearer is ever missed."""
        return self.kind == "FLAT"

    @property
    def name(self) -> str:
        """In words."""
        return f"Milvus {self.kind} ({self._place.uri or 'embedded'})"

    def close(self) -> None:
        """End the connection; the last one to an embedded database lets go of its folder."""
        disconnect(self._client, self._place)

    def nearest(self, queries: Vectors, count: int, where: Where) -> Near:
        """See `Engine.nearest`; K = count. Raises: SearchError if Milvus does not answer."""
        asked = np.ascontiguousarray(queries, dtype=np.float32)
        shape = (len(asked), count)
        rows, squared = np.full(shape, -1, dtype=np.int64), np.full(shape, np.inf)
        floor = np.full(len(asked), np.inf)
        share = max(1, ANSWER_BYTES // (count * self.width * 4))
        if self.exact and self._place.uri is None:
            share = 1  # milvus-lite makes all differences of all queries at once: Q·G·D numbers
        for start in range(0, len(asked), share):
            answers = self._ask(asked[start : start + share], count, where)
            for query, hits in enumerate(answers, start):
                if not hits:
                    continue
                entities = [hit["entity"] for hit in hits]
                vectors = np.array([one["features"] for one in entities], dtype=np.float32)
                rows[query, : len(hits)] = [one["row"] for one in entities]
                near = squared_differences(queries[query : query + 1], vectors[None])[0]
                squared[query, : len(hits)] = near
                if self.exact and len(hits) == count:
                    length = np.linalg.norm(asked[query : query + 1].astype(np.float64), axis=1)
                    slack = rounding(
                        self.width, float(np.finfo(np.float32).eps), length, self.longest
                    )
                    floor[query] = near.max() - 2 * slack[0]
        return Near(rows, squared, floor)

    def _ask(self, queries: NDArray[np.float32], count: int, where: Where) -> list[Any]:
        conditions = {"identity": where.identities, "camera": where.cameras}
        words = [
            f"{name} in {sorted(map(int, kept))}"
            for name, kept in conditions.items()
            if kept is not None
        ]
        effort = {key: value for key, value in self._settings.items() if key in ("ef", "nprobe")}
        if "ef" in effort:
            effort["ef"] = max(effort["ef"], count)
        with told(self._place):
            return self._client.search(
                self._collection,
                data=list(queries),
                anns_field="features",
                filter=" and ".join(words),
                limit=count,
                output_fields=["row", "features"],
                search_params={"metric_type": "L2", "params": effort},
                timeout=ANSWER_SECONDS,
            )


def build_milvus(
    place: Place,
    collection: str,
    gallery: FeatureSet,
    kind: str,
    settings: Mapping[str, int],
    report: Callable[[int], None],
) -> MilvusEngine:
    """Write a gallery into a new collection. Nothing of it is left if this fails; junk is not written at all.

    Args:
        place: where.
        collection: a name that is free.
        gallery: float32 features.
        kind, settings: of `settings_of`.
        report: called with the number of images done.

    Raises: SearchError if Milvus does not answer or refuses.
    """
    client = connect(place)
    try:
        with told(place):
            _write(client, collection, gallery, kind, settings, report)
            longest = float(gallery.features.norm(dim=1).max())
            return _opened(
                client, place, collection, kind, settings, gallery.features.shape[1], longest
            )
    except BaseException:
        with suppress(Exception):
            client.drop_collection(collection, timeout=ANSWER_SECONDS)
        disconnect(client, place)
        raise


def _write(
    client: MilvusClient,
    collection: str,
    gallery: FeatureSet,
    kind: str,
    settings: Mapping[str, int],
    report: Callable[[int], None],
) -> None:
    from pymilvus import DataType

    width = gallery.features.shape[1]
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("row", DataType.INT64, is_primary=True)
    schema.add_field("identity", DataType.INT64)
    schema.add_field("camera", DataType.INT64)
    schema.add_field("features", DataType.FLOAT_VECTOR, dim=width)
    client.create_collection(collection, schema=schema, consistency_level="Strong")
    counted = np.flatnonzero(gallery.identities != JUNK)
    step = max(1, INSERT_BYTES // (width * 4))
    for start in range(0, len(counted), step):
        rows = counted[start : start + step]
        vectors = gallery.features[rows].numpy()
        facts = zip(
            rows.tolist(),
            gallery.identities[rows].tolist(),
            gallery.cameras[rows].tolist(),
            vectors,
            strict=True,
        )
        columns = ("row", "identity", "camera", "features")
        client.insert(collection, [dict(zip(columns, one, strict=True)) for one in facts])
        report(min(start + step, len(counted)))
    client.flush(collection)
    index = client.prepare_index_params()
    built = {key: value for key, value in settings.items() if key not in ("ef", "nprobe")}
    index.add_index("features", index_type=kind, metric_type="L2", params=built)
    client.create_index(collection, index)


def open_milvus(
    place: Place,
    collection: str,
    kind: str,
    settings: Mapping[str, int],
    width: int,
    longest: float,
    count: int,
) -> MilvusEngine:
    """The engine of a collection that `build_milvus` wrote.

    Args:
        place, collection, kind, settings, width, longest: as they were then.
        count: images in it.

    Raises: SearchError if Milvus does not answer, or holds something else.
    """
    client = connect(place)
    try:
        with told(place):
            if not client.has_collection(collection, timeout=ANSWER_SECONDS):
                raise SearchError(
                    f"{place}: expected the collection {collection}, got none; was it dropped? make the index anew"
                )
            told_of: Any = client.describe_collection(collection, timeout=ANSWER_SECONDS)
            widths = [one["params"]["dim"] for one in told_of["fields"] if "dim" in one["params"]]
            kinds: Any = client.describe_index(collection, "features", timeout=ANSWER_SECONDS) or {}
            stats = client.get_collection_stats(collection, timeout=ANSWER_SECONDS)
            found = (*map(int, widths), kinds.get("index_type"), int(stats["row_count"]))
            if found != (width, kind, count):
                raise SearchError(
                    f"{place}: expected {count} images of {width} numbers by {kind} in {collection}, got "
                    f"{found}; was it changed? make the index anew"
                )
            return _opened(client, place, collection, kind, settings, width, longest)
    except BaseException:
        disconnect(client, place)
        raise


def _opened(
    client: MilvusClient,
    place: Place,
    collection: str,
    kind: str,
    settings: Mapping[str, int],
    width: int,
    longest: float,
) -> MilvusEngine:
    client.load_collection(collection, timeout=LOAD_SECONDS)
    return MilvusEngine(client, place, collection, kind, settings, width, longest)


def drop_collection(place: Place, collection: str) -> None:
    """Remove a collection and all that is in it. Raises: SearchError if Milvus does not answer."""
    client = connect(place)
    try:
        with told(place):
            client.drop_collection(collection, timeout=ANSWER_SECONDS)
    finally:
        disconnect(client, place)


# Connections

_embedded: Counter[str] = Counter()
_embedded_lock = threading.Lock()
"""Connections of this process to each embedded database: pymilvus serves them all from one, and does not count."""


def connect(place: Place) -> MilvusClient:
    """A connection. Raises: SearchError if there is no Milvus, ConfigError if pymilvus or milvus-lite is missing."""
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise ConfigError(
            "the engine milvus needs pymilvus and milvus-lite: pip install 'ccan[milvus]'"
        ) from error
    for name in ("pymilvus", "milvus_lite"):  # every error of theirs is told once, by `told`
        logging.getLogger(name).setLevel(logging.CRITICAL)
    token = os.environ.get(TOKEN, "") if place.uri else ""
    with told(place), nullcontext() if place.uri else _embedded_lock:
        try:
            client = MilvusClient(str(place), token=token, timeout=CONNECT_SECONDS)
        except Exception as error:
            if place.uri is None:
                _explain(place, error)
            raise
        if place.uri is None:
            _embedded[str(place)] += 1
    return client


def disconnect(client: MilvusClient, place: Place) -> None:
    """End a connection, and with the last one the embedded database."""
    client.close()
    if place.uri is not None:
        return
    from milvus_lite import server_manager_instance

    with _embedded_lock:
        _embedded[str(place)] -= 1
        if _embedded[str(place)] <= 0:
            del _embedded[str(place)]
            server_manager_instance.release_server(str(place))


def _explain(place: Place, error: Exception) -> None:
    """Raises: SearchError with the cause why an embedded database does not open; pymilvus keeps it to itself."""
    try:
        from milvus_lite import DataDirLockedError, MilvusLite
    except ImportError as missing:
        raise ConfigError(
            "an embedded Milvus needs milvus-lite: pip install 'ccan[milvus]'"
        ) from missing
    try:
        MilvusLite(str(place)).close()
    except DataDirLockedError as locked:
        raise SearchError(
            f"{place}: in use by another process, and an embedded Milvus serves one at a time; end that one (a "
            "dashboard?), build with --engine exact, which any number may read, or use a Milvus server (--uri)"
        ) from locked
    except Exception as cause:
        raise SearchError(f"{place}: cannot be opened ({cause}); make the index anew") from error


@contextmanager
def told(place: Place) -> Iterator[None]:
    """What goes wrong in Milvus as one sentence of ours. Raises: SearchError."""
    from grpc import RpcError
    from pymilvus import MilvusException

    try:
        yield
    except (MilvusException, RpcError) as error:
        said = getattr(error, "message", None) or str(error)
        what = "is the server running, and the address right?" if place.uri else "is the disk full?"
        raise SearchError(f"{place}: Milvus does not do what it should: {said}; {what}") from error
