"""Milvus as the engine of a search: embedded in a folder (milvus-lite), or a server that is reached by URL.

Milvus holds descriptors, identities and cameras and filters by them; candidates come back with their vectors, and their
distances are measured again in float64, so that a FLAT index ranks exactly as the search in this process does.

Letters: Q queries, G gallery images, D numbers of a descriptor, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ccan.config import SearchConfig
from ccan.data.records import JUNK
from ccan.errors import SearchError
from ccan.evaluation.feature_set import FeatureSet
from ccan.evaluation.ranking import Facts
from ccan.search.connection import ANSWER_SECONDS, Place, connect, disconnect, told
from ccan.search.interface import Near, Rows, Vectors, Where, rounding, squared_differences

if TYPE_CHECKING:
    from pymilvus import MilvusClient

LOAD_SECONDS = 3600
MOST = 16_384
"""Candidates that Milvus gives at most."""
FEW = 1024
"""Images so few that an approximate index is not asked: all of them are compared."""
LARGEST_EF = 32_768
INDEX = "features"
"""Name of the index, as of the field that it is of."""
FLOAT32_EPS = float(np.finfo(np.float32).eps)
INSERT_BYTES, ANSWER_BYTES = 8 * 2**20, 32 * 2**20
SEGMENT = 100_000
"""Images that milvus-lite indexes together; a server's segments are larger."""


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

    An approximate index follows neighbours, of which a filter may forbid nearly all. Where a filter leaves few images,
    all of those are fetched and compared; where it leaves more, so much more effort is made as it forbids.

    Args:
        client: an open connection.
        place: of what.
        collection: name of the collection, which is loaded.
        kind, settings: of its index.
        facts: who is on which image.
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
        facts: Facts,
        width: int,
        longest: float,
    ) -> None:
        self._client, self._place, self._collection = client, place, collection
        self._settings, self._facts, self.longest = dict(settings), facts, longest
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
        """See `Engine.nearest`. Raises: SearchError if Milvus does not answer."""
        filtered = where.cameras is not None or where.identities is not None
        allowed = int(where.mask(self._facts).sum()) if filtered else len(self._facts.identities)
        if filtered and allowed <= FEW and not self.exact:
            return self._among_few(queries, where)
        widening = len(self._facts.identities) / max(1, allowed)
        asked = np.ascontiguousarray(queries, dtype=np.float32)
        shape = (len(asked), count)
        rows, squared = np.full(shape, -1, dtype=np.int64), np.full(shape, np.inf)
        floor = np.full(len(asked), np.inf)
        share = max(1, ANSWER_BYTES // (count * self.width * 4))
        if self.exact and self._place.uri is None:
            share = 1  # milvus-lite makes all differences of all queries at once: Q·G·D numbers
        for start in range(0, len(asked), share):
            answers = self._ask(asked[start : start + share], count, where, widening)
            for query, hits in enumerate(answers, start):
                if not hits:
                    continue
                found, vectors = _taken([hit["entity"] for hit in hits])
                near = squared_differences(queries[query : query + 1], vectors[None])[0]
                rows[query, : len(found)], squared[query, : len(found)] = found, near
                if self.exact and len(found) == count:
                    length = np.linalg.norm(asked[query : query + 1].astype(np.float64), axis=1)
                    slack = rounding(self.width, FLOAT32_EPS, length, self.longest)
                    floor[query] = near.max() - 2 * slack[0]
        return Near(rows, squared, floor)

    def _ask(
        self, queries: NDArray[np.float32], count: int, where: Where, widening: float
    ) -> list[Any]:
        effort: dict[str, int] = {}
        if "ef" in self._settings:
            wanted = max(self._settings["ef"], count) * widening
            effort["ef"] = int(min(wanted, LARGEST_EF))
        if "nprobe" in self._settings:
            wanted = self._settings["nprobe"] * widening
            effort["nprobe"] = int(min(np.ceil(wanted), self._settings["nlist"]))
        with told(self._place):
            return self._client.search(
                self._collection,
                data=list(queries),
                anns_field="features",
                filter=_condition(where),
                limit=count,
                output_fields=["row", "features"],
                search_params={"metric_type": "L2", "params": effort},
                timeout=ANSWER_SECONDS,
            )

    def _among_few(self, queries: Vectors, where: Where) -> Near:
        """All allowed images, fetched once and compared with every query."""
        with told(self._place):
            entities: list[Any] = self._client.query(
                self._collection,
                filter=_condition(where),
                limit=FEW,
                output_fields=["row", "features"],
                timeout=ANSWER_SECONDS,
            )
        rows, vectors = _taken(entities)
        vectors = vectors.reshape(len(rows), self.width)
        squared = [squared_differences(query[None], vectors[None])[0] for query in queries]
        return Near(
            np.tile(rows, (len(queries), 1)),
            np.array(squared).reshape(len(queries), len(rows)),
            np.full(len(queries), np.inf),
        )


def _condition(where: Where) -> str:
    """The filters in Milvus' words; of whole numbers alone."""
    conditions = {"identity": where.identities, "camera": where.cameras}
    return " and ".join(
        f"{name} in {sorted(map(int, kept))}"
        for name, kept in conditions.items()
        if kept is not None
    )


def _taken(entities: Sequence[Mapping[str, Any]]) -> tuple[Rows, NDArray[np.float32]]:
    """Rows (K,) and vectors (K, D) of what Milvus gave."""
    rows = np.array([one["row"] for one in entities], dtype=np.int64)
    return rows, np.array([one["features"] for one in entities], dtype=np.float32)


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
            _write(client, collection, gallery, report)
            _index(client, place, collection, kind, settings)
            longest = float(gallery.features.norm(dim=1).max())
            width = gallery.features.shape[1]
            client.load_collection(collection, timeout=LOAD_SECONDS)
            return MilvusEngine(client, place, collection, kind, settings, gallery, width, longest)
    except BaseException:
        with suppress(Exception):
            client.drop_collection(collection, timeout=ANSWER_SECONDS)
        disconnect(client, place)
        raise


def _write(
    client: MilvusClient,
    collection: str,
    gallery: FeatureSet,
    report: Callable[[int], None],
) -> None:
    """Create the collection and fill it."""
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


def _index(
    client: MilvusClient, place: Place, collection: str, kind: str, settings: Mapping[str, int]
) -> None:
    """Have the vectors indexed."""
    built = {key: value for key, value in settings.items() if key not in ("ef", "nprobe")}
    # milvus-lite 3.2 looks for the settings one level deeper than the client puts them.
    params = {"params": built} if place.uri is None else built
    index = client.prepare_index_params()
    index.add_index("features", index_type=kind, index_name=INDEX, metric_type="L2", params=params)
    client.create_index(collection, index)


def open_milvus(
    place: Place,
    collection: str,
    kind: str,
    settings: Mapping[str, int],
    facts: Facts,
    width: int,
    longest: float,
) -> MilvusEngine:
    """The engine of a collection that `build_milvus` wrote.

    Args:
        place, collection, kind, settings, facts, width, longest: as they were then.

    Raises: SearchError if Milvus does not answer, or holds something else.
    """
    count = int((facts.identities != JUNK).sum())
    client = connect(place)
    try:
        with told(place):
            if not client.has_collection(collection, timeout=ANSWER_SECONDS):
                raise SearchError(
                    f"{place}: expected the collection {collection}, got none; was it dropped? make the index anew"
                )
            told_of: Any = client.describe_collection(collection, timeout=ANSWER_SECONDS)
            widths = [one["params"]["dim"] for one in told_of["fields"] if "dim" in one["params"]]
            kinds: Any = client.describe_index(collection, INDEX, timeout=ANSWER_SECONDS) or {}
            stats = client.get_collection_stats(collection, timeout=ANSWER_SECONDS)
            found = (*map(int, widths), kinds.get("index_type"), int(stats["row_count"]))
            if found != (width, kind, count):
                raise SearchError(
                    f"{place}: expected {count} images of {width} numbers by {kind} in {collection}, got "
                    f"{found}; was it changed? make the index anew"
                )
            client.load_collection(collection, timeout=LOAD_SECONDS)
            return MilvusEngine(client, place, collection, kind, settings, facts, width, longest)
    except BaseException:
        disconnect(client, place)
        raise
