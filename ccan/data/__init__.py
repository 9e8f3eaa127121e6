"""Datasets on disk as lists of samples: `load_dataset` reads any of them by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ccan.data.cuhk03 import load_cuhk03
from ccan.data.dukemtmc import load_dukemtmc, load_occluded_duke
from ccan.data.folder import load_image_folder
from ccan.data.market1501 import load_market1501
from ccan.data.market_style import load_market_style
from ccan.data.msmt17 import load_msmt17
from ccan.data.records import ReIDDataset, Sample, SkippedFile
from ccan.data.synthetic_world import load_synthetic
from ccan.data.table import load_table
from ccan.errors import ConfigError

__all__ = ["DATASETS", "ReIDDataset", "Sample", "SkippedFile", "load_dataset"]


def load_demo(root: str | Path | None = None, *, progress: bool = True) -> ReIDDataset:
    """The dashboard's world (`ccan.data.synthetic.demo.demo_world`), kept in the cache folder."""
    if root is not None:
        raise ConfigError(
            f"dataset 'demo' has no folder, got {str(root)!r}; to read that folder name its layout, for "
            "example 'synthetic' (on a command line: --dataset synthetic)"
        )
    from ccan.data.synthetic.demo import demo_world

    return demo_world(progress=progress)


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
        name: one of `DATASETS`; `demo` is the dashboard's world, rendered on first use.
        root: its folder, as the loader describes it; `demo` alone has none.
        options: settings of that loader, for example ``keep_junk=True``.

    Raises: ConfigError for an unknown name or option, listing the known ones, and for a missing root; DatasetError
    from the loader.
    """
    if name not in DATASETS:
        raise ConfigError(f"dataset must be one of {', '.join(DATASETS)}, got {name!r}")
    known = [
        parameter.name
        for parameter in inspect.signature(DATASETS[name]).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(
            f"dataset {name!r} has no option {', '.join(unknown)}; it has: {', '.join(known)}"
        )
    if root is None and name != "demo":
        raise ConfigError(
            f"dataset {name!r} is read from a folder; name it (on a command line: --data DIR)"
        )
    return DATASETS[name](root, **options)
