"""Looking for the page's queries in a gallery of another engine: the same ranking, the same filters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.actions import act
from app.selection import Selection
from app.store import Store
from app.views import rank
from ccan.config import SearchConfig
from ccan.data.records import ReIDDataset
from ccan.errors import CheckpointError, ConfigError, ShapeError
from ccan.evaluation.extraction import fingerprint
from ccan.search import SearchIndex, Source, build_index
from tests.pages import Page, png, uploaded
from tests.small import small_predictor


def source_of(store: Store) -> Source:
    return Source(
        checkpoint="small",
        fingerprint=fingerprint(store.network.model, ()),
        dataset="small",
        root=str(store.dataset.root),
    )


def named(store: Store):
    """The gallery with names that are paths within the dataset."""
    root = store.dataset.root
    names = [one.path.relative_to(root).as_posix() for one in store.dataset.gallery]
    gallery = store.index.gallery
    return type(gallery)(gallery.features, gallery.identities, gallery.cameras, names)


@pytest.fixture(params=["exact", "milvus"])
def both(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store with an index of its own gallery, by each engine."""
    own = Store(store.predictor, store.index, store.report, "small", tmp_path / "cases.jsonl")
    config = SearchConfig(engine=request.param)
    with build_index(
        tmp_path / "index <b>", named(store), config, source=source_of(store)
    ) as index:
        own.set_gallery(index)
        yield own


def shown(store: Store, selection: Selection) -> list[str]:
    """Names and marks of the images in the other gallery's panel."""
    assert store.found_elsewhere(selection).wait(60)
    html = rank.show_results(store, selection)
    panel = html[html.index('aria-label="In the gallery') :]
    page = Page("<section " + panel[: panel.index("</section>")] + "</section>")
    return [one["title"] for one in page.classed("card")]


def expected(store: Store, selection: Selection) -> list[tuple[str, float, str]]:
    """The same from the page's own ranking, without what the protocol ignores."""
    ranking, gallery = store.ranking(selection.query), store.index.gallery
    found = []
    for place, row in enumerate(ranking.order):
        camera, identity = int(gallery.cameras[row]), int(gallery.identities[row])
        if ranking.marks[place] == "ignored":
            continue
        if selection.cameras and camera not in selection.cameras:
            continue
        if selection.identity is not None and identity != selection.identity:
            continue
        name = named(store).names or ()
        found.append((ranking.marks[place], float(ranking.distances[place]), name[row]))
    return found[:10]


def same(titles: list[str], wanted: list) -> bool:
    """Whether the panel shows these images, in this order, at these distances."""
    ok = len(titles) == len(wanted)
    for title, (_, far, name) in zip(titles, wanted, strict=False):
        ok &= title.endswith(f": {name}") and f"distance {far:.3f}" in title
    return ok


def test_the_other_gallery_ranks_as_the_page_does(both: Store) -> None:
    for query in both.query_ids[::7]:
        here = Selection(query, tab="rank")
        assert same(shown(both, here), expected(both, here))
        assert both.report.ap[both.query_rows[query]] == both.ranking(query).ap


def test_filters_are_the_same(both: Store) -> None:
    here = Selection(both.query_ids[3], tab="rank", cameras=(2, 3))
    assert same(shown(both, here), expected(both, here)) and shown(both, here)
    one = replace(here, cameras=(), identity=5)
    assert same(shown(both, one), expected(both, one)) and shown(both, one)
    sample = both.sample(here.query)
    assert sample is not None
    none = replace(here, cameras=(sample.camera,), identity=sample.identity)
    assert shown(both, none) == [] == expected(both, none)
    assert "No image there passes the filters" in rank.show_results(both, none)


def test_marks_and_words_are_those_of_the_protocol(both: Store) -> None:
    here = Selection(both.query_ids[5], tab="rank")
    html = rank.show_results(both, here) if both.found_elsewhere(here).wait(60) else ""
    assert "In the gallery “index &lt;b&gt;”" in html and "<b>”" not in html
    assert "exact" in html and "are ignored" in html
    words = [title.split(",")[0] for title in shown(both, here)]
    marks = {"right": "same person", "wrong": "another person"}
    assert [word == "right" or marks["right"] in word for word in words] == [
        one[0] == "right" for one in expected(both, here)
    ]


def test_an_upload_is_looked_for_too(both: Store) -> None:
    here = act(both, Selection(both.query_ids[0], tab="rank"), "upload", uploaded(png()))
    titles = shown(both, here)
    assert same(titles, expected(both, here)) and len(titles) == 10
    assert "nothing is ignored" in rank.show_results(both, here)


def test_pictures_come_from_the_root_and_faces_are_blurred(both: Store) -> None:
    other = both.elsewhere
    assert other is not None
    sharp, soft = other.thumbnail(0, False), other.thumbnail(0, True)
    assert sharp.startswith("data:image/jpeg") and soft != sharp
    here = Selection(both.query_ids[3], tab="rank", blur=True)
    assert both.found_elsewhere(here).wait(60)
    rows = both.found_elsewhere(here).value
    assert rows is not None
    html = rank.show_results(both, here)
    panel = html[html.index('aria-label="In the gallery') :]
    for row in rows.rows[0][:3].tolist():
        assert other.thumbnail(row, True) in panel and other.thumbnail(row, False) not in panel


def test_what_is_gone_is_a_grey_card(store: Store, dataset: ReIDDataset, tmp_path: Path) -> None:
    lost = replace(source_of(store), root=str(tmp_path))
    own = Store(store.predictor, store.index, store.report, "small", tmp_path / "cases.jsonl")
    with build_index(tmp_path / "index", named(store), source=lost) as index:
        own.set_gallery(index)
        assert own.elsewhere is not None
        assert own.elsewhere.thumbnail(0, False).startswith("data:image/svg+xml")


def test_another_networks_index_is_refused(store: Store, tmp_path: Path) -> None:
    other = small_predictor(tmp_path, 3)
    with build_index(tmp_path / "i", named(store), source=source_of(store)) as index:
        own = Store(other, store.index, store.report, "other", tmp_path / "c.jsonl")
        with pytest.raises(CheckpointError, match="other weights"):
            own.set_gallery(index)
        bare = Store(None, store.index, store.report, "f.npz", tmp_path / "c.jsonl")
        bare.set_gallery(index)
        assert shown(bare, Selection(bare.query_ids[0], tab="rank"))
    with pytest.raises(ConfigError, match="start with --gallery"):
        store.found_elsewhere(Selection(store.query_ids[0]))
    assert "In the gallery" not in rank.show_results(store, Selection(store.query_ids[0]))
    narrow = store.index.gallery.with_features(store.index.gallery.features[:, :5])
    index = build_index(tmp_path / "n", narrow, source=Source())
    with index, pytest.raises(ShapeError, match="expected an index of 16 numbers"):
        bare.set_gallery(index)


def test_a_slow_search_does_not_hold_the_page(both: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    go = threading.Event()
    real = SearchIndex.search

    def slow(self: SearchIndex, *arguments: object):
        go.wait(30)
        return real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SearchIndex, "search", slow)
    here = Selection(both.query_ids[9], tab="rank")
    page = Page(rank.show_results(both, here))
    assert "searching" in page.words and page.classed("strip"), "the rest of the page is there"
    go.set()
    assert both.found_elsewhere(here).wait(30)
    assert same(shown(both, here), expected(both, here))
