"""`ccan extract`: the descriptors of a dataset, a folder or one image, into a file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from ccan.cli.output import STANDARD_OUTPUT, Outputs
from ccan.data.records import JUNK, UNKNOWN_CAMERA, Sample
from ccan.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from ccan.data import ReIDDataset
    from ccan.evaluation import FeatureSet
    from ccan.predictor import Predictor

PLAIN = "images"


@dataclass(frozen=True)
class Extract:
    """Write the descriptors of a dataset or of any images to a file; goes on where it was interrupted."""

    source: Positional[str]
    """A dataset's folder, a folder of images, one image, or `demo` for the dashboard's world."""
    out: str
    """The .npz or .safetensors file; `-` = standard output, as .npz."""
    checkpoint: str = "demo"
    """A checkpoint file, a run folder, or `demo` for the bundled model."""
    dataset: str = "auto"
    """Layout of the folder; `auto` recognises one and takes anything else as plain images; `images` = plain images."""
    options: tuple[str, ...] = ()
    """Options of the dataset's loader as name=value."""
    split: Literal["test", "train", "query", "gallery", "multi_query"] = "test"
    """What of a dataset: `test` writes query and gallery as `ccan score` reads them, the others one list."""
    precision: Literal["float32", "float16"] = "float32"
    """Of the numbers in the file."""
    flip: bool = False
    """Average each image with its mirror."""
    broken_images: Literal["skip", "error"] = "skip"
    """An image that cannot be read is left out and listed, or ends the work."""
    batch_size: int = 64
    """Images in a forward pass."""
    workers: int = 2
    """Processes that decode images; 0 = decode in this process."""
    device: str = "auto"
    """`auto`, or a torch device."""

    def run(self) -> None:
        """Embed, say what was left out, write the file."""
        from ccan.evaluation.files import check_suffix, save_feature_set, save_features
        from ccan.predictor import Predictor

        with (
            Outputs(self.out) as outputs,
            outputs.file(self.out, ".npz") as path,
            ExitStack() as end,
        ):
            check_suffix(path)
            predictor = Predictor.from_checkpoint(self.checkpoint, self.device)
            lists = self._lists()
            print(f"device: {predictor.device}")
            work = self._work_folder(path, end)
            found = [self._embed(predictor, name, lists[name], work) for name in lists]
            if len(found) == 1:
                save_feature_set(path, found[0], self.precision)
            else:
                query, gallery = found
                save_features(path, query, gallery, self.precision)
            shutil.rmtree(work, ignore_errors=True)
            size = " × ".join(map(str, found[0].features.shape[1:]))
            counts = ", ".join(
                f"{len(one):,} {name}" for name, one in zip(lists, found, strict=True)
            )
            print(f"wrote {self.out}: {counts}; {size} numbers each, {self.precision}")

    def _work_folder(self, path: Path, end: ExitStack) -> Path:
        """Where finished parts wait: beside the file, so that the next try finds them."""
        if self.out == STANDARD_OUTPUT:
            return Path(end.enter_context(tempfile.TemporaryDirectory()))
        return path.with_name(f".{path.name}.parts")

    def _lists(self) -> dict[str, Sequence[Sample]]:
        """The images by the name of their list."""
        dataset = self._dataset()
        if dataset is None:
            return {PLAIN: self._plain()}
        print(dataset.summary())
        names = ("query", "gallery") if self.split == "test" else (self.split,)
        lists: dict[str, Sequence[Sample]] = {name: getattr(dataset, name) for name in names}
        empty = [name for name in names if not lists[name]]
        if empty:
            raise ConfigError(
                f"{self.source} has no {' and no '.join(empty)} images; choose another --split, "
                f"or --dataset {PLAIN} for every image of the folder"
            )
        return lists

    def _dataset(self) -> ReIDDataset | None:
        """The dataset at the source, or None for plain images."""
        from ccan.data import load_dataset, read_options, recognise

        if self.source == "demo" and not Path(self.source).exists():
            return load_dataset("demo")
        name = self.dataset
        if name == "auto":
            found = None if Path(self.source).is_file() else recognise(self.source)
            # Folders of images without splits may be people, or anybody's pictures: all of them are wanted.
            unsplit = found and found.name == "image-folder" and not self._has_queries()
            name = PLAIN if found is None or unsplit else found.name
        if name == PLAIN:
            if self.options:
                raise ConfigError(
                    f"plain images have no loader's options, got {' '.join(self.options)}; "
                    "name the layout with --dataset"
                )
            return None
        return load_dataset(name, self.source, **read_options(name, self.options))

    def _has_queries(self) -> bool:
        return (Path(self.source) / "query").is_dir()

    def _plain(self) -> list[Sample]:
        from ccan.data.loading import image_files

        source = Path(self.source)
        if not source.exists():
            raise DatasetError(f"{source}: there is no such folder or image; check the path")
        paths = image_files(source) if source.is_dir() else [source]
        print(f"{len(paths):,} plain images: nothing is known of identities and cameras")
        return [Sample(path, JUNK, UNKNOWN_CAMERA) for path in paths]

    def _embed(
        self, predictor: Predictor, name: str, samples: Sequence[Sample], work: Path
    ) -> FeatureSet:
        from ccan.evaluation.extraction import extract_in_parts

        settings: dict[str, Any] = {"flip": self.flip, "on_broken": self.broken_images}
        found = extract_in_parts(
            predictor.model,
            samples,
            work,
            name=name,
            progress=True,
            batch_size=self.batch_size,
            workers=self.workers,
            device=predictor.device,
            **settings,
        )
        if found.resumed:
            print(f"{found.resumed:,} of {len(samples):,} {name} images were embedded before")
        for path in found.broken:
            print(f"left out, not readable: {path}")
        return found.features
