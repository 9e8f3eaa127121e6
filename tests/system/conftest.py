"""A small dataset and its store, for the tests of the dashboard that need no browser."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest

from app.store import Store
from ccan.data.records import ReIDDataset
from tests.pages import make_store
from tests.small import small_dataset, small_predictor


@pytest.fixture(scope="module", autouse=True)
def swept() -> Iterator[None]:
    """Event loops that Gradio and its clients leave open do not trouble the modules that come after."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ReIDDataset:
    return small_dataset(tmp_path_factory.mktemp("images"), identities=8, cameras=3)


@pytest.fixture(scope="module")
def store(dataset: ReIDDataset, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    return make_store(dataset, small_predictor(folder), folder)
