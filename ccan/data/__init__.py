"""Datasets on disk as lists of samples: `load_dataset` reads any of them by name, or recognises it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ccan.data.cuhk03 import load_cuhk03
from ccan.data.dukemtmc import load_dukemtmc, load_occluded_duke
from ccan.data.folder import load_image_folder
from ccan.data.market1501 import load_market1501
from ccan.data.market_style import load_market_style
from ccan.data.msmt17 import load_msmt17
from ccan.data.options import check_options, options_of, parse_words
from ccan.data.recognition import Recognition, recognise, recognise_or_explain
from ccan.data.records import ReIDDataset, Sample, SkippedFile
from ccan.data.synthetic_world import load_synthetic
from ccan.data.table import load_table
from ccan.errors import ConfigError

__all__ = [
    "AUTO",
    "DATASETS",
    "ReIDDataset",
    "Recognition",
    "Sample",
    "SkippedFile",
    "load_dataset",
    "read_options",
    "recognise",
]


def load_demo(root: str | Path | None = None, *, progress: bool = True) -> ReIDDataset:
    """The dashboard's world (`ccan.data.synthetic.demo.demo_world`), kept in the cache folder."""
    if root is not None:
        raise ConfigError(
            f"dataset 'demo' has no folder, got {str(root)!r}; to read that folder name its layout, for "
            "example 'synthetic' (on a command line: --dataset synthetic)"
        )
    from ccan.data.synthetic.demo import demo_world

    return demo_world(progress=progress)


AUTO = "auto"
"""The name that stands for whatever layout a folder is recognised as."""

DATASETS: dict[str, Callable[..., ReIDDataset]] = {
    "market1501": load_market1501,
    "dukemtmc": load_dukemtmc,
    "occluded-duke": load_occluded_duke,
    "cuhk03": load_cuhk03,
    "msmt17": load_msmt17,
    "market-style": load_market_style,
    "image-folder": load_image_folder,
    "csv": load_table,
    "synthetic": load_synthetic,
    "demo": load_demo,
}
"""Loaders by name, each called with the root folder and its own options."""


def load_dataset(name: str, root: str | Path | None = None, **options: Any) -> ReIDDataset:
    """Read a dataset from a folder.

    Args:
        name: one of `DATASETS`, or `auto` to recognise it; `demo` is the dashboard's world, rendered on first use.
        root: its folder, as the loader describes it; `demo` alone has none.
        options: settings of that loader, for example ``keep_junk=True``.

    Raises: ConfigError for an unknown name or option, listing the known ones, for a value that does not fit, and for a
    missing root; DatasetError from the loader, or for a folder that is no known layout or several.
    """
    _check_name(name)
    if root is None and name != "demo":
        raise ConfigError(
            f"dataset {name!r} is read from a folder; name it (on a command line: --data DIR)"
        )
    if name == AUTO and root is not None:
        found = recognise_or_explain(root)
        dataset = load_dataset(found.name, root, **options)
        return replace(
            dataset, notes=(f"recognised as {found.name} by {found.seen}", *dataset.notes)
        )
    check_options(name, options_of(DATASETS[name]), options)
    return DATASETS[name](root, **options)


def read_options(name: str, words: Sequence[str]) -> dict[str, Any]:
    """Options for `load_dataset` from words such as ``box=detected``, typed by the loader's own signature.

    Args:
        name: the dataset; `auto` knows the options of all, and `load_dataset` then refuses those of others.
        words: ``name=value`` each; a name may be written with - for _.

    Raises: ConfigError for a word that is no such option, saying what would be.
    """
    _check_name(name)
    loaders = DATASETS.values() if name == AUTO else [DATASETS[name]]
    return parse_words(name, options_of(*loaders), words)


def _check_name(name: str) -> None:
    if name not in (AUTO, *DATASETS):
        raise ConfigError(f"dataset must be {AUTO} or one of {', '.join(DATASETS)}, got {name!r}")
