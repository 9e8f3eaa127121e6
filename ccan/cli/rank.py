"""`ccan rank`: the nearest images of an indexed gallery to one picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from ccan.cli.output import Outputs, columns
from ccan.data.records import JUNK, UNKNOWN_CAMERA
from ccan.errors import ConfigError

if TYPE_CHECKING:
    from ccan.search import Found, SearchIndex, Where


@dataclass(frozen=True)
class Rank:
    """Rank an indexed gallery for one image."""

    image: Positional[Path]
    """The picture."""
    gallery: Path
    """Index that `ccan index` made."""
    top: int = 10
    """So many of the nearest."""
    checkpoint: str | None = None
    """The network of the index, where it is not where it was; by default what the index names."""
    cameras: tuple[int, ...] = ()
    """Only images of these cameras."""
    identities: tuple[int, ...] = ()
    """Only images of these identities."""
    identity: int | None = None
    """Whom the picture shows: marks what is right, and with --camera leaves out its own view, as the protocol does."""
    camera: int = UNKNOWN_CAMERA
    """The picture's camera."""
    device: str = "auto"
    """`auto`, or a torch device."""
    json: str | None = None
    """Write the ranking to this file; `-` = standard output."""

    def run(self) -> None:
        """Open, describe, ask, print, write."""
        from ccan.predictor import Predictor
        from ccan.search import open_index

        if self.identity is None and self.camera != UNKNOWN_CAMERA:
            raise ConfigError("--camera says where --identity was seen; give both or neither")
        with Outputs(self.json) as outputs, open_index(self.gallery) as index:
            index.check_source()
            checkpoint = self.checkpoint or index.description.source.checkpoint
            predictor = Predictor.from_checkpoint(checkpoint or "demo", self.device)
            index.check_model(predictor)
            query = predictor.embed(self.image)
            found = index.search(query, self.top, self._where(index))
            rows = self._rows(index, found)
            print(index.describe())
            header = (
                "place",
                "distance",
                "identity",
                "camera",
                "image",
                *(["mark"] * self._marked),
            )
            print(columns(header, [[one[name] for name in header] for one in rows]))
            if not rows:
                print("no image passes the filters")
            outputs.json(
                self.json,
                {"image": str(self.image), "index": index.description.to_dict(), "ranking": rows},
            )

    @property
    def _marked(self) -> bool:
        return self.identity is not None

    def _where(self, index: SearchIndex) -> Where:
        from ccan.search import Views, Where

        own = None
        if self.identity is not None:
            own = Views.of(self.identity, self.camera, index.name_of(self.image))
        return Where(self.cameras or None, self.identities or None, own)

    def _rows(self, index: SearchIndex, found: Found) -> list[dict[str, Any]]:
        """The ranking, an entry a place."""
        ranking: list[dict[str, Any]] = []
        for row, distance in zip(found.rows[0].tolist(), found.distances[0].tolist(), strict=True):
            if row < 0:
                break
            entry = {
                "place": len(ranking) + 1,
                "distance": distance,
                "identity": int(index.identities[row]),
                "camera": int(index.cameras[row]),
                "image": index.names[row],
                "row": row,
            }
            if self.identity is not None:
                right = entry["identity"] == self.identity and self.identity != JUNK
                entry["mark"] = "right" if right else "wrong"
            ranking.append(entry)
        return ranking
