"""The workbench: what Overview, Rank, Attention and Parts show is what the library computes, and nothing else."""

from __future__ import annotations

import base64
import contextlib
import io
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.actions import ACTIONS, act, query_list
from app.components.charts import heat_table
from app.jobs import KEPT, Job, Jobs, Stopped
from app.maps import COLOURINGS, GRID
from app.masks import digits_in, mask_text
from app.runs import Runs
from app.saving import FIGURES, KINDS, save
from app.selection import (
    LENSES,
    MATRICES,
    ORDERS,
    SIDES,
    TABS,
    TARGETS,
    VERDICTS,
    Scoring,
    Selection,
    Tab,
    from_link,
    to_link,
)
from app.store import Recent, Store, measured_trust
from app.views import attention, compare, errors, header, help, learn, overview, parts, rank, runs
from app.views import map as map_view
from ccan.cases import VERDICTS as CASE_VERDICTS
from ccan.data.records import ReIDDataset
from ccan.errors import CCANError, ConfigError, DatasetError
from ccan.evaluation import FeatureSet, ReRanking, camera_pairs, evaluate_features
from ccan.evaluation.files import save_features
from ccan.explain.account import distance_accounts
from ccan.explain.attention import SUMMARIES
from ccan.explain.counterfactual import counterfactuals
from ccan.explain.votes import round_trip, split_votes
from ccan.plots import ColourScale
from ccan.predictor import Predictor
from ccan.projection import MAPS
from ccan.training.journal import RunFolder
from tests.pages import HOSTILE, Page, make_store, png, uploaded
from tests.small import SMALL_MODEL, small_dataset, small_predictor, write_checkpoint


@pytest.fixture(scope="module")
def bare(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same features without the network."""
    path = tmp_path_factory.mktemp("bare") / "features.npz"
    save_features(path, store.index.query, store.index.gallery)
    return Store.of_features(path, progress=False)


@pytest.fixture
def start(store: Store) -> Selection:
    return Selection(store.query_ids[4])


def failing(store: Store) -> Selection:
    """A query that is not perfect."""
    return Selection(store.by_difficulty[0])


# Overview


def test_behind_a_point_of_the_curve_stand_the_queries_that_it_counts(store: Store) -> None:
    points = [
        one["data-value"] for one in Page(overview.show(store, failing(store))).asking("subset")
    ]
    assert {"miss:1", "miss:20", "pair:1:2"} <= set(points)
    for k in (1, 2, 5):
        hit, miss = store.subset(f"hit:{k}"), store.subset(f"miss:{k}")
        assert len(hit) / len(store.query_ids) == pytest.approx(store.report.rank(k))
        assert not set(hit) & set(miss) and len(hit) + len(miss) == len(store.query_ids)
        assert list(miss.values()) == sorted(miss.values())
    assert 0 < len(store.subset("miss:1")) < len(store.query_ids), "the test sees both kinds"


def test_behind_a_cell_stand_its_queries_with_their_ap(store: Store) -> None:
    pairs = camera_pairs(store.index.query, store.index.gallery)
    for i, first in enumerate(pairs.query_cameras):
        for j, second in enumerate(pairs.gallery_cameras):
            if first == second:
                continue
            found = store.subset(f"pair:{first}:{second}")
            assert len(found) == pairs.queries[i, j]
            assert np.mean(list(found.values())) == pytest.approx(pairs.mAP[i, j])
            assert all(f"_c{first}s" in query for query in found)
    words = Page(overview.show(store, failing(store))).words
    assert f"{100 * pairs.rank1[0, 1]:.0f}" in words and "from ↓ to →" in words


def test_a_subset_is_walked_through_and_said(store: Store, start: Selection) -> None:
    chosen = act(store, start, "subset", "miss:1")
    members = list(store.subset("miss:1"))
    assert chosen.query in members and set(query_list(store, chosen)) == set(members)
    walked = {chosen.query}
    for _ in members:
        chosen = act(store, chosen, "step", 1)
        walked.add(chosen.query)
    assert walked == set(members)
    assert act(store, chosen, "random", "").query in members
    page = Page(overview.show(store, chosen) + header.show(store, chosen))
    assert f"{len(members)} queries: no match by rank 1" in page.words
    assert "subset=miss:1" in to_link(chosen, store)
    assert act(store, chosen, "subset", "").subset == ""
    with pytest.raises(ConfigError, match="no query is behind this"):
        act(store, start, "subset", "miss:48")
    with pytest.raises(ConfigError, match="there is no subset 'x:1'"):
        act(store, start, "subset", "x:1")


def test_ap_is_added_up_before_ones_eyes(store: Store) -> None:
    for query in store.query_ids:
        found = overview.steps(store, query)
        ap = sum(found.precisions) / len(found.ranks)
        assert ap == pytest.approx(store.report.ap[store.query_rows[query]])
    page = Page(overview.show(store, failing(store)))
    found = overview.steps(store, failing(store).query)
    assert f"{found.ranks[1]}" in page.words and f"= {sum(found.precisions):.3f} / 4" in page.words


def test_people_stand_in_rows_and_cameras_in_columns(store: Store, start: Selection) -> None:
    grid = overview.people(store, start)
    own = store.sample(start.query)
    assert own is not None and next(iter(grid)) == own.identity and len(grid) == 6
    for identity, cameras in grid.items():
        for camera, images in cameras.items():
            for image in images:
                sample = store.sample(image)
                assert sample is not None and (sample.identity, sample.camera) == (identity, camera)


def test_the_counts_of_every_split_are_told(store: Store, start: Selection) -> None:
    words = Page(overview.show(store, start)).words
    assert "query24830" in words and "gallery48830" in words  # images, identities, cameras, …
    assert "CCAN with 2 parts, input 64 × 32" in words


# Rank: what orders the gallery


def test_flip_and_re_ranking_are_those_of_the_evaluation(store: Store) -> None:
    mirrored = store.index.mirrored
    for scoring, sides, rerank in (
        (Scoring(flip=True), (mirrored["query"], mirrored["gallery"]), None),
        (Scoring(rerank=True), (store.index.query, store.index.gallery), ReRanking()),
        (Scoring(True, True), (mirrored["query"], mirrored["gallery"]), ReRanking()),
    ):
        expected = evaluate_features(*sides, rerank=rerank).ap
        store.reranking(scoring.flip).wait(60)
        found = [store.ranking(query, scoring).ap for query in store.query_ids]
        np.testing.assert_allclose(found, expected, atol=1e-9)
        assert not np.allclose(found, store.report.ap), "the switch does something here"


def test_weights_act_on_the_parts_before_the_normalisation(store: Store) -> None:
    weights = (0.5, 2.0, 0.3)
    query = store.query_ids[0]
    for query in store.query_ids[:4]:
        sides = []
        for split, rows in (("query", [store.query_rows[query]]), ("gallery", None)):
            found = store.index.vectors(split, rows)
            assert found.parts is not None and found.direction is not None
            whole = np.einsum("s,nsd->nd", [*weights[1:], 1.0], found.parts)
            whole /= np.linalg.norm(whole, axis=1, keepdims=True)
            sides.append(np.hstack([np.sqrt(weights[0]) * found.direction, whole]))
        expected = np.linalg.norm(sides[1] - sides[0], axis=1)
        ranking = store.ranking(query, Scoring(weights=weights))
        np.testing.assert_allclose(ranking.distances, np.sort(expected), atol=1e-4)
    plain = store.ranking(query)
    for same in (Scoring(weights=(1.0, 1.0, 1.0)), Scoring()):
        np.testing.assert_allclose(store.ranking(query, same).distances, plain.distances, atol=1e-3)


def test_sliders_read_no_feature_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    query = store.query_ids[7]
    store.ranking(query, Scoring(weights=(1.0, 0.5, 1.0)))

    def forbidden(*_: object) -> None:
        raise AssertionError("a feature was read")

    monkeypatch.setattr(type(store.index), "vectors", forbidden)
    monkeypatch.setattr("app.store.query_grams", forbidden)
    assert store.ranking(query, Scoring(weights=(1.0, 0.25, 1.0))).ap >= 0


def test_switches_and_weights_exclude_each_other(store: Store, start: Selection) -> None:
    both = act(store, act(store, start, "flip", "1"), "rerank", "1")
    assert both.flip and both.rerank
    weighed = act(store, both, "weigh", {"stream": "P2", "weight": "0"})
    assert (weighed.flip, weighed.rerank, weighed.weights) == (False, False, (1.0, 1.0, 0.0))
    assert act(store, weighed, "flip", "1").weights == ()
    assert act(store, weighed, "weigh", {"stream": "P2", "weight": 1}).weights == ()


def test_the_summary_compares_with_the_plain_ranking(store: Store) -> None:
    query = next(
        query
        for query in store.query_ids
        if store.ranking(query, Scoring(weights=(0.0, 1.0, 0.0))).ap != store.ranking(query).ap
    )
    weighed = Selection(query, tab="rank", weights=(0.0, 1.0, 0.0))
    words = Page(rank.show_results(store, weighed)).words
    change = 100 * (store.ranking(query, weighed.scoring).ap - store.ranking(query).ap)
    assert f"{change:+.1f} points" in words


def test_filters_of_identity_and_mark(store: Store) -> None:
    selection = replace(failing(store), shown=60)
    ranking = store.ranking(selection.query)
    for kind in ("right", "wrong"):
        _, places = rank.listed(store, replace(selection, verdict=kind))
        assert {ranking.marks[place] for place in places} == {kind}
    _, places = rank.listed(store, replace(selection, identity=3))
    assert set(store.index.gallery.identities[ranking.order[places]]) == {3} and len(places) == 6
    with pytest.raises(DatasetError, match="there is no identity '99' in the gallery"):
        act(store, selection, "identity", "99")
    with pytest.raises(DatasetError, match="expected a number as below the images"):
        act(store, selection, "identity", "<b>")


def test_the_threshold_counts_what_it_accepts(store: Store) -> None:
    selection = act(store, failing(store), "threshold", "on")
    job = store.distributions()
    assert job.wait(60) and job.value is not None
    selection = act(store, failing(store), "threshold", "on")
    assert selection.threshold == pytest.approx(job.value.eer_threshold, abs=6e-4)
    ranking = store.ranking(selection.query)
    middle = float(np.median(ranking.distances))
    selection = act(store, selection, "threshold", f"{middle:.3f}")
    assert selection.threshold is not None
    near = ranking.distances <= selection.threshold
    right = sum(mark == "right" for mark, yes in zip(ranking.marks, near, strict=True) if yes)
    page = Page(rank.show_results(store, replace(selection, shown=60)))
    assert f"{right} right, " in page.words
    assert len(page.classed("yes")) == int(near.sum())
    genuine, _ = job.value.at(selection.threshold)
    assert f"{100 * genuine:.1f} % genuine" in page.words


# Rank: why


def test_the_bars_are_the_account_of_the_network_itself(store: Store, start: Selection) -> None:
    images = [store.gallery_ids[row] for row in store.ranking(start.query).order[:5]]
    found = store.terms(start.query, images)
    batches = [store.prepared(start.query), *(store.prepared(image) for image in images)]
    for k, other in enumerate(batches[1:]):
        account = distance_accounts(store.network.model, batches[0], other)[0]
        assert found["P1"][k] == pytest.approx(account.terms["P1"], abs=2e-4)
        assert found["G"][k] == pytest.approx(account.branches()["G"], abs=2e-4)
        assert sum(values[k] for values in found.values()) == pytest.approx(
            store.distance(start.query, images[k]) ** 2, abs=2e-4
        )


def test_the_rivals_are_set_against_each_other(store: Store) -> None:
    selection = failing(store)
    ranking = store.ranking(selection.query)
    names = rank.rivals(store, selection)
    for mark in ("right", "wrong"):
        place = list(store.gallery_ids[row] for row in ranking.order).index(
            names[f"nearest {mark}"]
        )
        assert ranking.marks[place] == mark and mark not in ranking.marks[:place]
    found = rank.accounts(store, selection)
    near, far = (sum(found[f"nearest {mark}"].values()) for mark in ("wrong", "right"))
    page = Page(rank.show_results(store, selection))
    assert f"sum {far - near:+.3f}" in page.words
    assert ("the wrong image is ahead" in page.words) == (far > near)
    local = sum(value for term, value in found["chosen"].items() if term != "G")
    assert f"G {found['chosen']['G']:.3f} + L {local:.3f}" in page.words


def test_deltas_are_counted_from_the_first_wrong_image(store: Store) -> None:
    selection = failing(store)
    ranking = store.ranking(selection.query)
    wrong = rank.first_wrong(ranking)
    assert wrong == ranking.distances[ranking.marks.index("wrong")]
    words = Page(rank.show_results(store, selection)).words
    assert f"Δ {ranking.distances[0] - wrong:+.3f}" in words and "Δ +0.000" in words


# Uploads


def picture() -> Image.Image:
    colours = np.random.default_rng(3).integers(0, 255, (64, 32, 3)).astype(np.uint8)
    return Image.fromarray(colours)


def encoded(image: Image.Image, kind: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    return encoded(picture().rotate(90, expand=True), "JPEG", exif=exif, quality=95)


def sixteen_bit() -> bytes:
    grey = np.linspace(0, 65535, 64 * 32).reshape(64, 32).astype(np.uint16)
    return encoded(Image.fromarray(grey), "PNG")


@pytest.mark.parametrize(
    "data",
    [
        turned(),
        encoded(picture().convert("RGBA"), "PNG"),
        encoded(picture().convert("CMYK"), "JPEG"),
        encoded(
            picture().convert("P"), "GIF", save_all=True, append_images=[Image.new("P", (32, 64))]
        ),
        encoded(picture(), "WEBP"),
        encoded(picture().convert("L"), "PNG"),
        encoded(picture().convert("1"), "PNG"),
        sixteen_bit(),
    ],
    ids=["turned", "RGBA", "CMYK", "animated", "WebP", "grey", "bits", "16 bit"],
)
def test_every_kind_of_picture_becomes_an_upright_query(
    store: Store, start: Selection, data: bytes
) -> None:
    after = act(store, start, "upload", uploaded(data))
    photo = store.photo(after.query)
    assert (photo.mode, photo.size) == ("RGB", (32, 64))
    assert set(store.ranking(after.query).marks) == {"unknown"}
    for scoring in (Scoring(flip=True), Scoring(weights=(1.0, 0.0, 1.0)), Scoring(rerank=True)):
        assert len(store.ranking(after.query, scoring)) == len(store.gallery_ids)


def test_a_turned_photograph_is_that_of_a_camera_held_upright(store: Store) -> None:
    upright = store.add_upload("a.jpg", encoded(picture(), "JPEG", quality=95))
    found = store.add_upload("b.jpg", turned())
    assert store.distance(upright, found) < store.distance(upright, store.gallery_ids[0]) / 3


def test_two_uploads_are_compared(store: Store, start: Selection) -> None:
    one = act(store, start, "upload", uploaded(encoded(picture(), "PNG"), "one.png"))
    both = act(store, one, "upload", uploaded(png(), "<b>two</b>.png", **{"as": "match"}))
    assert both.query == one.query and both.match is not None and store.is_upload(both.match)
    far = store.distance(both.query, both.match)
    expected = np.linalg.norm(store.network.embed([picture(), Image.open(io.BytesIO(png()))])[0:1]
                              - store.network.embed([picture(), Image.open(io.BytesIO(png()))])[1:2])  # fmt: skip
    assert far == pytest.approx(expected, abs=1e-4)
    page = Page(rank.show_results(store, both))
    assert f"Distance of the query and the image beside it: {far:.3f}." in page.words
    assert len(page.classed("pair")) == 1
    for show in (attention.show, parts.show, overview.show, header.show):
        html = show(store, both)
        assert "<b>two" not in html
        Page(html)
    assert to_link(both, store) == "?"
    # A new query keeps the picture beside it; walking on takes the ranking's nearest again.
    again = act(store, both, "upload", uploaded(png(20, 40)))
    assert again.match == both.match
    assert act(store, both, "step", 1).match is None


def test_uploads_are_never_written(
    store: Store, start: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    act(store, start, "upload", uploaded(png()))
    assert list(tmp_path.iterdir()) == []


# Attention


@pytest.mark.parametrize("matrix", ["A", "C", "Ct"])
def test_the_probe_reads_row_and_column_of_each_matrix(
    store: Store, start: Selection, matrix: str
) -> None:
    selection = replace(start, tab="attention", slot="CC2_2", cell=5, matrix=matrix)
    row, column = attention.layers_of(store, selection, "query")[-2:]
    maps = store.attention(start.query).slots["CC2_2"]
    of = {"A": maps.attention / 8, "C": maps.correlation, "Ct": maps.correlation.T}[matrix]
    assert row.here == pytest.approx(of[5, 5]) and column.here == pytest.approx(of[5, 5])
    for layer, expected in ((row, of[5]), (column, of[:, 5])):
        rows = layer.values[32:].reshape(4, 8, 2, 16).mean(axis=(1, 3))
        np.testing.assert_allclose(rows, expected.reshape(4, 2), rtol=1e-4, atol=1e-6)
    assert "(Eq.\xa0" in Page(attention.show(store, selection)).words


def test_the_votes_are_the_exact_split(store: Store, start: Selection) -> None:
    selection = replace(start, tab="attention", slot="SS1", cell=9, lens="votes")
    forward, backward = attention.layers_of(store, selection, "query")[-2:]
    maps = store.attention(start.query).slots["SS1"]
    split = split_votes(attention.attention_of(store, "SS1"), maps)
    assert forward.here == pytest.approx(split.forward[9, 9])
    assert backward.here == pytest.approx(split.backward[9, 9])
    words = Page(attention.show(store, selection)).words
    assert "vote of A′ᵀ" in words and "What SS1 has learned to vote" in words


def test_the_round_trip_and_the_numbers(store: Store, start: Selection) -> None:
    selection = replace(start, tab="attention", slot="CC2_1", cell=3, lens="trip")
    found = round_trip(store.attention(start.query).slots["CC2_1"])
    (layer,) = attention.layers_of(store, selection, "query")[2:]
    assert layer.here == pytest.approx(found.by_position.flat[3])
    words = Page(attention.show(store, selection)).words
    assert f"{100 * found.share:.1f} %" in words and "nats" in words and "A asymmetry" in words


def test_across_images_each_side_answers_the_other(store: Store, start: Selection) -> None:
    selection = replace(start, tab="attention", slot="CC2_1", cell=3, lens="across")
    match = store.match(selection)
    found = store.across(start.query, match)["CC2_1"]
    mine = attention.layers_of(store, selection, "query")[-1]
    other = attention.layers_of(store, selection, "image beside it")[-1]
    assert mine.here == pytest.approx(found.from_gallery(3).flat[3])
    assert other.here == pytest.approx(found.from_query(3).flat[3])
    assert "Outside training use" in Page(attention.show(store, selection)).words
    whole = Page(attention.show(store, replace(selection, slot="SS1")))
    assert "SS1 sees one image alone" in whole.words


# Parts


def test_a_mask_survives_its_digits(store: Store) -> None:
    mask = np.random.default_rng(0).random(store.mask_shape) > 0.6
    digits = mask_text(mask)
    assert len(digits) == digits_in(*mask.shape) == 8
    assert (store.mask(digits) == mask).all()
    assert not store.mask("").any()


def test_what_is_painted_is_hidden_from_the_network(store: Store) -> None:
    selection = act(store, failing(store), "paint", "strip 1")
    sample = store.sample(selection.query)
    assert sample is not None
    mask = np.kron(store.mask(selection.hidden), np.ones((8, 8), bool))
    assert mask[:32].all() and not mask[32:].any()
    expected = counterfactuals(
        store.network.model,
        store.prepared(selection.query),
        store.index.gallery,
        identity=sample.identity,
        camera=sample.camera,
        masks={"mine": mask},
    )["mine"]
    found = store.painted(selection.query, selection.hidden)
    assert found.ranking.ap == pytest.approx(expected.ap)
    assert found.moved == pytest.approx(expected.moved, abs=1e-4) and found.moved > 0.01
    page = Page(parts.show(store, selection))
    assert f"{found.moved:.3f}" in page.words and f"{100 * found.ranking.ap:.1f} %" in page.words
    assert page.classed("brush")[0]["data-mask"] == "ffff0000"
    assert act(store, selection, "step", 1).hidden == "", "paint belongs to one picture"


def test_without_a_stream_the_ranking_is_that_of_weight_nought(store: Store) -> None:
    selection = failing(store)
    found = store.knocked_out(selection.query)
    assert list(found) == ["unchanged", "G", "P1", "P2"]
    for name in ("G", "P1", "P2"):
        weighed = act(store, selection, "reset_weights", f"-{name}")
        assert found[name].ap == pytest.approx(store.ranking(selection.query, weighed.scoring).ap)
    words = Page(parts.show(store, selection)).words
    assert f"{100 * (found['P1'].ap - found['unchanged'].ap):+.1f}" in words


def test_strips_energies_and_channels_are_shown(store: Store, start: Selection) -> None:
    page = Page(parts.show(store, replace(start, part="P2")))
    one = store.activations(start.query)["P2"]
    assert f"ch {one.channels[0]}" in page.words and "P2 energy" in page.words
    alignment = store.alignment(start.query, store.nearest(start.query))
    assert f"{alignment.similarity[0, 1]:+.2f}" in page.words
    assert page.classed("marked"), "the best assignment is framed"
    assert all(source.startswith("data:image/") for source in page.sources())


def test_nothing_is_claimed_of_maps_that_nobody_measured(store: Store, start: Selection) -> None:
    words = Page(parts.show(store, start)).words
    assert "Nobody has measured this model's maps" in words and "not measured" in words
    identity = Page(parts.show(store, replace(start, target="identity"))).words
    assert "Nobody has measured these maps for this score" in identity


def test_measuring_a_query_brings_its_scores(store: Store) -> None:
    selection = act(store, Selection(store.query_ids[2], tab="parts"), "measure", "")
    job = store.faithfulness(selection.query, store.match(selection))
    assert job.wait(120), "it ends"
    assert not job.error and job.value is not None
    scores, of = parts.family_scores(store, selection)
    assert of == "this query" and {"random", "centre", "G gradcam", "parts ledger"} <= set(scores)
    page = Page(parts.show(store, selection))
    assert f"{scores['G gradcam']:+.3f}" in page.words
    kinds = [one["class"].split()[1] for one in page.classed("faith")]
    assert set(kinds) <= {"good", "weak", "bad"} and len(kinds) == 12
    rival = max(scores["centre"], scores["random"])
    names = [f"{side} {m}" for side in ("G", "parts") for m in
             ("gradcam", "gradcam++", "hirescam", "layercam", "eigencam", "ledger")]  # fmt: skip
    for name, kind in zip(names, kinds, strict=True):
        assert (kind == "good") == (scores[name] > rival), name
        assert (kind == "bad") == (scores[name] <= scores["random"]), name


def test_the_bundled_models_scores_are_those_of_the_documentation() -> None:
    found = measured_trust("demo")
    assert found["SS1 gathered"][0] < 0 < found["G gradcam++"][0] < found["centre"][0]
    assert "better than random" in found["G gradcam++"][1]
    assert measured_trust("nowhere/model.safetensors") == {}


def test_uploads_have_parts_but_no_ap(store: Store, start: Selection) -> None:
    after = act(store, replace(start, tab="parts"), "upload", uploaded(png()))
    words = Page(parts.show(store, act(store, after, "paint", "strip 2"))).words
    assert "there is no AP to compare" in words and "The embedding moved by" in words
    with pytest.raises(DatasetError, match="there is no margin to test on"):
        act(store, after, "measure", "")


@pytest.mark.parametrize(
    "change",
    [
        {"ssa": False},
        {"local_branch": False, "cca": False},
        {"global_branch": False, "ssa": False, "cca": False},
        {"attention": "non_local"},
        {"parts": 1},
        {"neck": "batch_norm"},
        {"cca_target": "global"},
        {"attention_values": "source"},
    ],
    ids=lambda change: ", ".join(map(str, change)),
)
def test_every_kind_of_network_has_all_views(
    dataset: ReIDDataset, tmp_path: Path, change: dict
) -> None:
    path = write_checkpoint(tmp_path / "m.safetensors", 0, replace(SMALL_MODEL, **change))
    few = replace(dataset, query=dataset.query[:6], gallery=dataset.gallery[:12])
    small = make_store(few, Predictor.from_checkpoint(path, "cpu"), tmp_path)
    selection = Selection(small.query_ids[0])
    for lens in ("probe", "votes", "trip", "across"):
        try:
            chosen = act(small, selection, "lens", lens)
        except CCANError:
            assert not small.slots
            chosen = selection
        Page(attention.show(small, chosen))
    hidden = act(small, selection, "paint", "strip 1")
    for show in (overview.show, rank.show_controls, rank.show_results, parts.show):
        Page(show(small, hidden))
    if len(small.streams) > 1:
        weighed = act(small, selection, "reset_weights", f"-{small.streams[-1]}")
        assert len(small.ranking(weighed.query, weighed.scoring)) == 12
        Page(rank.show_results(small, weighed))
    after = act(small, selection, "upload", uploaded(png()))
    assert len(small.ranking(after.query, Scoring(flip=True))) == 12


# Features of another model


def test_features_alone_open_overview_and_rank(bare: Store, store: Store) -> None:
    np.testing.assert_allclose(bare.report.ap, store.report.ap, atol=1e-9)
    selection = Selection(bare.query_ids[0])
    for show in (overview.show, rank.show_controls, rank.show_results, header.show):
        Page(show(bare, selection))
    words = Page(overview.show(bare, selection)).words
    assert "Features of another model" in words
    for show in (attention.show, parts.show):
        assert "There is no network here, only its features" in Page(show(bare, selection)).words
    assert not Page(rank.show_controls(bare, selection)).classed("uploader")
    assert {"flip", "weigh"}.isdisjoint(
        one.get("data-do", "") for _, one in Page(rank.show_controls(bare, selection)).tags
    )
    reranked = act(bare, selection, "rerank", "1")
    assert bare.reranking(False).wait(60)
    assert bare.ranking(selection.query, reranked.scoring).ap >= 0
    for name, value in [
        ("upload", uploaded(png())), ("flip", "1"), ("weigh", {"stream": "G", "weight": 1}),
        ("slot", "SS1"), ("lens", "across"), ("paint", "strip 1"), ("measure", ""), ("part", "G"),
    ]:  # fmt: skip
        with pytest.raises(CCANError):
            act(bare, selection, name, value)


def test_an_image_that_is_not_there_is_a_grey_card(bare: Store) -> None:
    source = bare.thumbnail(bare.query_ids[0])
    assert source.startswith("data:image/svg+xml;base64,")
    card = base64.b64decode(source.partition(",")[2]).decode()
    assert ">1</text>" in card


def test_pictures_of_features_come_from_their_folder(
    store: Store, dataset: ReIDDataset, tmp_path: Path
) -> None:
    path = tmp_path / "f.npz"
    save_features(path, store.index.query, store.index.gallery)
    found = Store.of_features(path, dataset.root, cache=tmp_path, progress=False)
    assert found.query_ids == store.query_ids
    assert found.thumbnail(found.query_ids[3]) == store.thumbnail(store.query_ids[3])


def test_two_images_of_one_name_are_told_apart(tmp_path: Path) -> None:
    side = FeatureSet(np.eye(4), [1, 1, 2, 2], [1, 2, 1, 2], ["a.jpg"] * 4)
    save_features(tmp_path / "f.npz", side, side)
    found = Store.of_features(tmp_path / "f.npz", progress=False)
    assert found.query_ids == ["query/0", "query/1", "query/2", "query/3"]


# Whatever is done, in whatever order

ALL_VIEWS = (overview.show, rank.show_controls, rank.show_results, attention.show, parts.show, map_view.show,
    errors.show, compare.show, learn.show, runs.show, header.show)  # fmt: skip


def some_value(store: Store, chance: random.Random, action: str) -> object:
    """A value that the page could send with an action."""
    streams = store.streams or ["G"]
    choose = chance.choice
    return {
        "choose": lambda: choose(store.query_ids),
        "step": lambda: choose(["1", "-1"]),
        "neighbour": lambda: choose(["1", "-1"]),
        "subset": lambda: choose(
            ["", "miss:1", "hit:2", "pair:1:2", "tagged", "tag:a", "kind:look-alike"]
        ),
        "page": lambda: "2",
        "match": lambda: choose(store.gallery_ids),
        "camera": lambda: choose([*store.cameras, "all"]),
        "identity": lambda: choose(["1", ""]),
        "threshold": lambda: choose(["on", "0.3", "off"]),
        "shown": lambda: "5",
        "verdict": lambda: choose(VERDICTS),
        "order": lambda: choose(ORDERS),
        "weigh": lambda: {"stream": choose(streams), "weight": choose([0, 0.5, 1, 3])},
        "reset_weights": lambda: choose(["", streams[-1], f"-{streams[0]}"]),
        "upload": lambda: uploaded(
            png(chance.randint(1, 50), chance.randint(1, 90)), **{"as": choose(["query", "match"])}
        ),
        "slot": lambda: choose(store.slots or ["SS1"]),
        "lens": lambda: choose(LENSES),
        "matrix": lambda: choose(MATRICES),
        "point": lambda: {
            "panel": choose(["SS1", "CC2"]),
            "x": chance.random(),
            "y": chance.random(),
        },
        "move": lambda: {"from": 0, "to": "down"},
        "part": lambda: choose(streams),
        "target": lambda: choose(TARGETS),
        "paint": lambda: choose(["", "strip 1", "f" * max(1, digits_in(*store.mask_shape))]),
        "tab": lambda: choose(TABS),
        "summary": lambda: choose(SUMMARIES),
        "tag": lambda: choose(["a", "b", "look-alike"]),
        "untag": lambda: choose(["a", "b"]),
        "note": lambda: "some words",
        "judge": lambda: f"{choose(CASE_VERDICTS)} {chance.randint(0, 3)}",
        "curve": lambda: choose(["", "none"]),
        "metric": lambda: choose(["loss", "x"]),
        "slice_by": lambda: choose(store.slice_columns),
        "maps": lambda: choose(["", *MAPS]),
        "colour": lambda: choose(list(COLOURINGS)),
        "dot": lambda: chance.randint(0, len(store.people)),
        "lasso": lambda: choose(["", lasso_of(store, chance)]),
        "tag_lasso": lambda: "in a lasso",
        "spot": lambda: {"x": chance.random(), "y": chance.random()},
        "side": lambda: choose(SIDES),
        "sheet": lambda: chance.randint(0, 3),
        "changes": lambda: chance.randint(0, 3),
        "untag_lasso": lambda: "in a lasso",
        "unprepare": lambda: choose(["all", *store.query_ids]),
        "lesson": lambda: choose(["", "miss:1", "prepared"]),
        "guess": lambda: chance.randint(0, 2),
        "region": lambda: choose(["", "f0000000"]),
        "prepare": lambda: choose(store.query_ids),
        "again": lambda: choose(store.query_ids),
    }.get(action, lambda: choose("01"))()


def lasso_of(store: Store, chance: random.Random) -> str:
    """Something drawn around on a map, if there is a map."""
    job = store.mapping()
    job.wait(60)
    if job.value is None:
        return ""
    corners = "".join(f"{chance.randint(0, GRID):04x}" for _ in range(12))
    return f"{chance.choice(job.value.maps)}:{job.value.key}:{corners}"


def wander(store: Store, steps: int, seed: int) -> None:
    """Do things at random; every view must be whole after each, and the link must lead back."""
    chance = random.Random(seed)
    selection = Selection(store.query_ids[0])
    done = 0
    for _ in range(steps):
        action = chance.choice([name for name in ACTIONS if name not in ("measure", "report")])
        try:
            selection = act(store, selection, action, some_value(store, chance, action))
        except CCANError:
            continue
        done += 1
        for show in ALL_VIEWS:
            Page(show(store, selection))
        with contextlib.suppress(CCANError):
            save(store, selection, f"{chance.choice(list(FIGURES))}.csv")
        values = dict(
            pair.split("=", 1) for pair in to_link(selection, store)[1:].split("&") if pair
        )
        back, notice = from_link(values, store)
        assert notice == ""
        brought = [image for image in (selection.query, selection.match) if image]
        if not any(map(store.is_upload, brought)):
            passing: dict[str, Any] = {
                "page": None,
                "sheet": 0,
                "changes": 0,
                "guess": "",
                "region": "",
            }
            assert replace(back, **passing) == replace(selection, **passing)
    assert done > steps / 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{}, {"local_branch": False, "cca": False}, {"parts": 1}, {"attention": "non_local"}],
    ids=lambda change: ", ".join(map(str, change)) or "whole",
)
def test_no_order_of_actions_breaks_a_view(tmp_path: Path, change: dict) -> None:
    few = small_dataset(tmp_path / "images", identities=4, cameras=2)
    path = write_checkpoint(tmp_path / "m.safetensors", 0, replace(SMALL_MODEL, **change))
    store = make_store(few, Predictor.from_checkpoint(path, "cpu"), tmp_path)
    store.set_other(make_store(few, small_predictor(tmp_path, 1), tmp_path))
    wander(store, 90, 1)


def features(count: int, value: float | None = None) -> np.ndarray:
    generator = np.random.default_rng(count)
    return generator.standard_normal((count, 8)) if value is None else np.full((count, 8), value)


@pytest.mark.parametrize(
    ("query", "gallery"),
    [
        ((features(4), [1, 1, 2, 2], [1, 2, 1, 2]), (features(6), [1, 1, 2, 2, 3, 3], [1, 2] * 3)),
        ((features(2), [1, 2], [-1, -1], ["a", "b"]), (features(4), [1, 2] * 2, [-1] * 4, list("abcd"))),
        ((features(2), [1, 9], [1, 1], ["a", "b"]), (features(3), [1, 2, 3], [2, 1, 1], list("cde"))),
        ((features(1), [1], [1], ["a"]), (features(1), [1], [2], ["c"])),
        ((features(2), [1, 2], [1, 2], ["a", "b"]), (features(4), [0, 0, 1, 2], [1, 2, 2, 1], list("cdef"))),
        ((features(2, 1.0), [1, 2], [1, 2]), (features(4, 1.0), [0, 0, 1, 2], [1, 2, 2, 1])),
        ((features(2, 0.0), [1, 2], [1, 2]), (features(4, 0.0), [0, 0, 1, 2], [1, 2, 2, 1])),
    ],
    ids=["no names", "no cameras", "no match", "one image", "distractors", "all the same", "all zero"],
)  # fmt: skip
def test_unusual_features_break_no_view(tmp_path: Path, query: tuple, gallery: tuple) -> None:
    path = tmp_path / "f.npz"
    save_features(path, FeatureSet(*query), FeatureSet(*gallery))
    wander(Store.of_features(path, progress=False), 60, 2)


def test_a_name_that_both_sides_have_means_two_images(tmp_path: Path) -> None:
    side = FeatureSet(features(2), [1, 2], [-1, -1], ["a", "b"])
    other = FeatureSet(-features(4), [1, 2, 1, 2], [-1] * 4, list("abcd"))
    save_features(tmp_path / "f.npz", side, other)
    store = Store.of_features(tmp_path / "f.npz", progress=False)
    assert store.query_ids == ["a", "b"] and store.gallery_ids[0] == "gallery:a"
    expected = float((side.features[0] - other.features[0]).norm())
    assert store.distance("a", "gallery:a") == pytest.approx(expected, abs=1e-5)


# Saving


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_saved_as_picture_and_numbers(
    store: Store, name: str, tmp_path: Path
) -> None:
    selection = act(store, failing(store), "paint", "strip 2")
    if not store.cases.images():
        act(store, selection, "tag", "seen")
        store.cases.judge(store.gallery_ids[0], store.gallery_ids[1], "same")
    if name in ("ap_scatter", "outcomes", "slopes", "side_by_side"):
        store = Store(store.predictor, store.index, store.report, "small", tmp_path / "c.jsonl")
        store.set_other(make_store(store.dataset, small_predictor(tmp_path, 1), tmp_path))
    if name == "lasso":
        job = store.mapping()
        assert job.wait(60) and job.value is not None
        box = "00000000ffff0000ffffffff0000ffff"
        selection = act(store, selection, "lasso", f"joint:{job.value.key}:{box}")
    if name == "lesson":
        selection = act(store, act(store, selection, "lesson", ""), "guess", "0")
        selection = act(store, selection, "answer", "0")
    if name == "curves":
        folder = RunFolder(tmp_path / "one")
        folder.start({}, {})
        for epoch in range(4):
            folder.write(epoch, {"loss": 2.5 / (epoch + 1)})
        store.runs = Runs(tmp_path)
    if name == "hubs" and not len(store.diagnosed().hubs.rows):
        with pytest.raises(ConfigError, match="no image stands out"):
            save(store, selection, "hubs.csv")
        return
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "csv": b"", "json": b"{"}
    for kind in KINDS:
        found = save(store, selection, f"{name}.{kind}")
        assert found.name.startswith(name) and found.name.endswith(f".{kind}")
        assert found.data.startswith(starts[kind]) and len(found.data) > 40
        assert found.address.startswith(f"data:{KINDS[kind]};base64,")
    rows = save(store, selection, f"{name}.csv").data.decode().splitlines()
    assert len(rows) > 1 and all(row.count(",") >= rows[0].count(",") for row in rows)


def test_saved_numbers_are_those_of_the_page(store: Store) -> None:
    selection = replace(failing(store), shown=5)
    rows = save(store, selection, "ranking.csv").data.decode().splitlines()
    ranking = store.ranking(selection.query)
    first = dict(zip(rows[0].split(","), rows[1].split(","), strict=True))
    assert len(rows) == 6 and first["image"] == store.gallery_ids[ranking.order[0]]
    assert float(first["distance"]) == pytest.approx(float(ranking.distances[0]), rel=1e-5)
    cmc = save(store, selection, "cmc.csv").data.decode().splitlines()
    assert float(cmc[1].split(",")[1]) == pytest.approx(store.report.rank(1))


def test_saving_is_refused_where_there_is_nothing(
    store: Store, bare: Store, start: Selection
) -> None:
    for value in ("cmc.exe", "../x.png", "cmc", "", None, "none.png"):
        with pytest.raises(ConfigError, match="there is no figure"):
            save(store, start, value)
    with pytest.raises(ConfigError, match="nothing is painted"):
        save(store, start, "painted.png")
    with pytest.raises(ConfigError, match="have no account"):
        save(bare, Selection(bare.query_ids[0]), "account.csv")
    after = act(store, start, "upload", uploaded(png(), "../../<b>x</b>.png"))
    with pytest.raises(ConfigError, match="there is no AP to save"):
        save(store, after, "ap_steps.png")
    assert save(store, after, "energy.csv").name == "energy_.._.._b_x_b_.csv"


def test_saved_tables_hold_no_formula(dataset: ReIDDataset, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "=cmd()_0001_c1.png"
    path.write_bytes(dataset.gallery[0].path.read_bytes())
    sample = replace(dataset.gallery[0], path=path)
    few = replace(dataset, root=tmp_path, gallery=(sample, *dataset.gallery[1:]))
    hostile = make_store(few, store.network, tmp_path / "cache")
    selection = Selection(hostile.query_ids[0], shown=60)
    text = save(hostile, selection, "ranking.csv").data.decode()
    assert "'=cmd()" in text and "\n=cmd()" not in text


def test_a_saved_file_reaches_the_browser_in_the_header(store: Store, start: Selection) -> None:
    from app.ui import respond

    after, head, *views = respond(store, start, "save", "cmc.csv")
    (link,) = [attrs for _, attrs in Page(head).tags if "data-save" in attrs]
    assert after == start and link["download"] == "cmc.csv"
    assert b"rank" in base64.b64decode(link["href"].partition(",")[2])
    assert not any(isinstance(view, str) for view in views)
    assert "there is no figure" in respond(store, start, "save", "x")[1]


# Blur


def test_faces_are_blurred_wherever_a_picture_is_shown(
    store: Store, start: Selection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ccan.reports.photos import blurred

    image = store.gallery_ids[0]
    sharp, soft = np.asarray(store.photo(image)), np.asarray(store.photo(image, blur=True))
    head = len(sharp) // 4
    assert (sharp[head + 1 :] == soft[head + 1 :]).all()
    edges = [np.abs(np.diff(one[:head].astype(float), axis=1)).mean() for one in (sharp, soft)]
    assert edges[1] < edges[0] / 3
    assert store.thumbnail(image, blur=True) != store.thumbnail(image)
    after = act(store, start, "upload", uploaded(encoded(picture(), "PNG")))
    asked: list[tuple[str, bool]] = []
    real_photo, real_thumbnail = store.photo, store.thumbnail

    def thumbnail(image: str, blur: bool = False) -> str:
        asked.append((image, blur))
        return real_thumbnail(image, blur)

    monkeypatch.setattr(store, "thumbnail", thumbnail)
    drawn: list[np.ndarray] = []
    for view in ("attention", "parts"):
        monkeypatch.setattr(
            f"app.views.{view}.overlay",
            lambda photo, *a, **b: drawn.append(np.asarray(photo)) or Image.new("RGB", (4, 8)),
        )
    for chosen in (start, after):
        chosen = replace(chosen, blur=True, hidden="ffff0000", subset="hit:20")
        for show in (overview.show, rank.show_controls, rank.show_results, header.show):
            show(store, chosen)
        heads = [
            np.asarray(blurred(real_photo(one)))[:head]
            for one in (chosen.query, store.match(chosen))
        ]
        drawn.clear()
        attention.show(store, chosen)
        parts.show(store, chosen)
        assert len(drawn) > 20
        # What is painted grey lies over the blurred head.
        plain = [one for one in drawn if any(np.array_equal(one[: len(h)], h) for h in heads)]
        assert len(plain) == len(drawn) - len(store.painted(chosen.query, chosen.hidden).maps)
    assert asked and all(blur for _, blur in asked)


# What is kept, and what runs beside


def test_the_newest_values_are_kept() -> None:
    kept: Recent[int] = Recent(2)
    made: list[str] = []

    def make(key: str) -> int:
        made.append(key)
        return len(made)

    for key in ("a", "b", "a", "c", "a", "b"):
        kept.get_or_make(key, lambda key=key: make(key))
    assert made == ["a", "b", "c", "b"]


def test_maps_are_made_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    selection = Selection(store.query_ids[11], tab="parts")
    parts.show(store, selection)
    attention.show(store, selection)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a map was made again")

    for name in ("trace", "grad_cams", "align_parts", "ledger"):
        monkeypatch.setattr(f"app.store.{name}", forbidden)
    parts.show(store, selection)
    attention.show(store, replace(selection, cell=2, lens="votes"))


def test_a_job_tells_how_far_it_is_and_can_be_stopped() -> None:
    go, seen = threading.Event(), threading.Event()

    def work(report: Callable[[float, float, str], None]) -> int:
        report(1, 4, "counting")
        seen.set()
        go.wait(30)
        report(2, 4, "counting on")
        return 7

    jobs = Jobs()
    job = jobs.begin("a", work)
    assert seen.wait(30) and job.progress == (1, 4, "counting") and not job.ended
    assert jobs.begin("a", lambda _: 8) is job
    go.set()
    assert job.wait(30) and (job.value, job.error) == (7, "")
    go.clear()
    seen.clear()
    jobs.drop("a")
    other = jobs.begin("a", work)
    assert other is not job and seen.wait(30)
    jobs.drop("a")
    go.set()
    assert other.wait(30) and other.value is None and other.error == "stopped"
    assert issubclass(Stopped, CCANError)


def test_jobs_are_not_kept_for_ever() -> None:
    jobs, go = Jobs(), threading.Event()
    running = jobs.begin("running", lambda _: go.wait(30))
    for number in range(3 * KEPT):
        assert jobs.begin(number, lambda _: 1).wait(30)
    assert len(jobs._jobs) == KEPT and jobs.found("running") is running
    assert jobs.found(0) is None and jobs.found(3 * KEPT - 1) is not None
    go.set()


def test_a_job_that_fails_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.components.html import pending

    def work(_: object) -> None:
        raise ZeroDivisionError("<b>no</b>")

    job: Job[None] = Job(work)
    assert job.wait(30) and job.error == "ZeroDivisionError: <b>no</b>"
    html = pending(job, "counting")
    assert "<b>" not in html and "data-poll" not in html
    assert "data-poll" in pending(Job(lambda _: time.sleep(1)), "counting")


def test_until_re_ranking_is_there_the_plain_order_stands(
    dataset: ReIDDataset, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = make_store(dataset, store.network, tmp_path)
    go = threading.Event()

    def slow(*_: object) -> None:
        go.wait(60)
        raise ConfigError("the work failed")

    monkeypatch.setattr("app.store.reranked_distances", slow)
    selection = Selection(fresh.query_ids[0], tab="rank", rerank=True)
    page = Page(rank.show_results(fresh, selection))
    assert "until then the plain order stands" in page.words and page.classed("pending")
    assert [one["data-value"] for one in page.buttons("match")][:3] == [
        fresh.gallery_ids[row] for row in fresh.ranking(selection.query).order[:3]
    ]
    go.set()
    assert fresh.reranking(False).wait(60)
    assert "the work failed" in Page(rank.show_results(fresh, selection)).words


# Words


def test_a_picture_that_is_gone_takes_nothing_else_with_it(store: Store, tmp_path: Path) -> None:
    from app.ui import PIECES, respond

    few = small_dataset(tmp_path / "images", identities=2, cameras=2)
    fresh = make_store(few, store.network, tmp_path / "cache")
    query = fresh.query_ids[0]
    few.query[0].path.unlink()
    selection, head, *views = respond(fresh, Selection(query), "tab", "attention")
    assert selection.query == query and "0001_c1s1" in head
    shown = views[[tab for tab, _ in PIECES].index("attention")]
    assert "This cannot be shown" in shown and "0001_c1s1_000000_01.png" in shown
    assert Page(shown).classed("notice")[0]["role"] == "alert"
    _, _, *views = respond(fresh, selection, "tab", "rank")
    assert "Ranked gallery" in views[2], "what needs no picture is still shown"


def test_hostile_names_stay_text_everywhere(
    dataset: ReIDDataset, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / HOSTILE
    path.write_bytes(dataset.query[0].path.read_bytes())
    sample = replace(dataset.query[0], path=path)
    bad = replace(
        dataset,
        name="<script>alert(2)</script>",
        root=tmp_path,
        query=(sample, *dataset.query[1:]),
        gallery=(sample, *dataset.gallery[1:]),
    )
    hostile = make_store(bad, store.network, tmp_path / "cache")
    hostile.checkpoint = "<svg onload=alert(3)>"
    selection = Selection(HOSTILE, match=HOSTILE, subset="hit:20", hidden="ffff0000", threshold=0.5)
    for lens in ("probe", "votes"):
        for show in (
            overview.show,
            rank.show_controls,
            rank.show_results,
            attention.show,
            parts.show,
            errors.show,
            map_view.show,
            learn.show,
        ):
            html = show(hostile, replace(selection, lens=lens)) + header.show(
                hostile, selection, HOSTILE
            )
            page = Page(html)
            assert not {"script", "svg onload"} & {tag for tag, _ in page.tags}
            assert not [1 for _, attrs in page.tags if {"onerror", "onload"} & set(attrs)]


def test_every_view_has_its_help_and_pictures_have_words(store: Store, start: Selection) -> None:
    shows: dict[Tab, Callable[[Store, Selection], str]] = {
        "overview": overview.show, "rank": rank.show_controls, "attention": attention.show,
        "parts": parts.show, "map": map_view.show, "errors": errors.show, "compare": compare.show,
        "learn": learn.show, "runs": runs.show,
    }  # fmt: skip
    assert set(shows) == set(help.WORDS)
    for tab, show in shows.items():
        page = Page(show(store, start))
        assert help.WORDS[tab][0] in page.words and page.classed("lesson")
        assert all("alt" in attrs for tag, attrs in page.tags if tag == "img")
        for tag, attrs in page.tags:
            if tag == "input" or attrs.get("role") in ("button", "application"):
                assert attrs.get("aria-label"), attrs


def test_a_heat_table_says_what_is_missing() -> None:
    values = np.array([[np.nan, 1.0], [0.0, 0.5]])
    page = Page(heat_table(values, ["a", "b"], ["c", "d"], ColourScale(0, 1), "{:.1f}"))
    assert len(page.classed("none")) == 1 and "–" in page.words and "0.5" in page.words


def test_the_typed_endpoints_give_what_the_page_shows(store: Store, start: Selection) -> None:
    import gradio as gr

    from app.ui import account, rendered_view

    image = store.nearest(start.query)
    found = account(store, start.query, image)
    assert sum(found.values()) == pytest.approx(store.distance(start.query, image) ** 2, abs=1e-4)
    with pytest.raises(gr.Error, match="there is no image"):
        account(store, start.query, "x")
    view = rendered_view(store, f"?query={start.query}&tab=rank&shown=x")
    assert view["view"] == rank.show_controls(
        store, replace(start, tab="rank")
    ) + rank.show_results(store, replace(start, tab="rank"))
    assert "shown=x" in view["notice"]
