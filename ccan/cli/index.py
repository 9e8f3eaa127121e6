"""`ccan index`: a gallery made ready to be searched, in this process or by Milvus."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from ccan.cli.indexed import Indexed, progress_bar
from ccan.cli.output import Outputs
from ccan.config import SearchConfig
from ccan.errors import ConfigError, DatasetError, ProtocolError

if TYPE_CHECKING:
    from ccan.evaluation import FeatureSet
    from ccan.search import Source


@dataclass(frozen=True)
class Index:
    """Index a gallery for `ccan rank`: searched exactly in this process, or by Milvus."""

    out: Path
    """Folder of the index; must not be there yet."""
    of: Annotated[Indexed, arg(name="")] = field(default_factory=Indexed)
    """Which checkpoint's descriptors, of which dataset's gallery."""
    features: Path | None = None
    """Index this file of features (.npz, .safetensors) instead: its gallery, or its one list."""
    images: Path | None = None
    """Folder of the pictures that the features' names are paths in."""
    device: str = "auto"
    """`auto`, or a torch device."""
    search: Annotated[SearchConfig, arg(name="")] = field(default_factory=SearchConfig)
    """What finds."""
    json: str | None = None
    """Write what was made to this file; `-` = standard output."""

    def run(self) -> None:
        """Describe the images, build the index, say what it is."""
        from ccan.search import build_index
        from ccan.search.build import check_place

        with Outputs(self.json) as outputs:
            check_place(self.out)
            gallery, source = self._dataset() if self.features is None else self._file()
            with progress_bar() as progress:
                index = build_index(
                    self.out, gallery, self.search, source=source, progress=progress
                )
            with index:
                print(f"wrote {self.out}: {index.describe()}")
                outputs.json(self.json, {"index": str(self.out)} | index.description.to_dict())
            shutil.rmtree(self._work(), ignore_errors=True)

    def _work(self) -> Path:
        """Where finished parts of the descriptors wait: beside the index, so that the next try finds them."""
        return self.out.with_name(f".{self.out.name}.parts")

    def _dataset(self) -> tuple[FeatureSet, Source]:
        """The gallery of a dataset as a network describes it."""
        from ccan.data import load_dataset, read_options
        from ccan.evaluation.extraction import extract_in_parts, fingerprint
        from ccan.predictor import Predictor
        from ccan.search import Source
        from ccan.search.index import image_name
        from ccan.training.checkpoint import resolve_checkpoint

        if self.images is not None:
            raise ConfigError("--images belongs to --features; a dataset knows its pictures")
        asked = self.of
        predictor = Predictor.from_checkpoint(asked.checkpoint, self.device)
        options = read_options(asked.dataset, asked.options)
        dataset = load_dataset(asked.dataset, asked.data, **options)
        print(f"{dataset.summary()}\ndevice: {predictor.device}")
        if not dataset.gallery:
            raise DatasetError(f"{dataset.root}: expected gallery images to index, got none")
        found = extract_in_parts(
            predictor.model,
            dataset.gallery,
            self._work(),
            name="gallery",
            progress=True,
            device=predictor.device,
        )
        for path in found.broken:
            print(f"left out, not readable: {path}")
        root = Path(dataset.root).absolute()
        names = [image_name(Path(name), root) for name in found.features.names or ()]
        checkpoint = asked.checkpoint
        if checkpoint != "demo":
            checkpoint = str(resolve_checkpoint(checkpoint).absolute())
        model = fingerprint(predictor.model, ())
        source = Source(dataset.name, str(root), checkpoint, model)
        return replace_names(found.features, names), source

    def _file(self) -> tuple[FeatureSet, Source]:
        """The gallery of a file of features."""
        from ccan.evaluation.files import load_feature_set, load_features
        from ccan.files import inside
        from ccan.search import Source

        assert self.features is not None
        if self.of != Indexed():
            raise ConfigError(
                "--features holds its descriptors; leave out --data, --dataset, --options and --checkpoint"
            )
        try:
            _, gallery = load_features(self.features)
        except ProtocolError:  # no query: one list, or a file that is told of in full
            gallery = load_feature_set(self.features)
        print(f"{len(gallery):,} descriptors of {self.features}")
        if self.images is None:
            return gallery, Source(self.features.stem)
        root = self.images.absolute()
        paths = [inside(root, name) for name in gallery.names or ()]
        if not any(path.is_file() for path in paths):
            raise DatasetError(
                f"{self.images}: expected the images that {self.features.name} names, found none of {len(paths)}; "
                "pass the folder that these names are paths in"
            )
        names = [path.relative_to(root).as_posix() for path in paths]
        return replace_names(gallery, names), Source(self.features.stem, str(root))


def replace_names(features: FeatureSet, names: list[str]) -> FeatureSet:
    """The same images under other names."""
    from ccan.evaluation import FeatureSet

    return FeatureSet(
        features.features, features.identities, features.cameras, names, features.metadata
    )
