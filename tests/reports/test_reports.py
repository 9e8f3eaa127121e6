"""Reports: one page that needs nothing else, every figure and number beside it, no face where none is wanted."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ccan.cli import main, parse
from ccan.cli.diagnose import Diagnose
from ccan.cli.explain import Explain
from ccan.data import load_dataset
from ccan.data.synthetic import WorldConfig, write_world
from ccan.data.synthetic.world import Region
from ccan.diagnosis import rank_all
from ccan.errors import ConfigError, DatasetError, ShapeError
from ccan.explain.embedding import embedding_maps
from ccan.explain.trace import trace
from ccan.explain.weighting import part_vectors, query_grams
from ccan.gallery import GalleryIndex, index_dataset
from ccan.predictor import Predictor
from ccan.reports.case import gallery_grams, prepared, study_case, summary_table
from ccan.reports.page import Page
from ccan.reports.photos import blurred
from ccan.reports.whole import (
    ReportOptions,
    choose_queries,
    stream_features,
    write_diagnosis,
    write_explanations,
)
from ccan.tables import Table
from tests.small import SMALL_MODEL, write_checkpoint


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = WorldConfig(identities=12, cameras=3, images_per_camera=2, seed=5, height=64, width=32)
    return write_world(config, tmp_path_factory.mktemp("world") / "w", workers=1, progress=False)


def opened(world: Path, folder: Path, **change: object) -> tuple[Predictor, GalleryIndex]:
    config = replace(SMALL_MODEL, **change)  # type: ignore[arg-type]
    predictor = Predictor.from_checkpoint(
        write_checkpoint(folder / "net.safetensors", 1, config), "cpu"
    )
    return predictor, index_dataset(predictor, load_dataset("synthetic", world), cache=folder)


@pytest.fixture(scope="module")
def small(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Predictor, GalleryIndex]:
    return opened(world, tmp_path_factory.mktemp("small"))


class Addresses(HTMLParser):
    """What a page loads, and what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag in ("img", "script", "iframe", "link"):
            self.loaded += [str(found[key]) for key in ("src", "href") if found.get(key)]
        if tag == "img":
            self.images.append(found)
        self.scripts += tag == "script"


def read(path: Path) -> Addresses:
    page = Addresses()
    page.feed(path.read_text(encoding="utf-8"))
    return page


@pytest.mark.slow
def test_an_explanation_is_one_page_with_everything_beside_it(
    small: tuple[Predictor, GalleryIndex], tmp_path: Path
):
    predictor, index = small
    said: list[str] = []
    path = write_explanations(
        predictor, index, [0, 3], ReportOptions(tmp_path, top=5), say=said.append
    )
    page = read(path)
    assert page.scripts == 0 and page.images and len(said) == 2
    assert all(address.startswith("data:image/") for address in page.loaded)
    assert all(image["alt"] for image in page.images)
    for case in ("00000", "00003"):
        folder = tmp_path / "cases" / case
        figures = {file.stem for file in folder.glob("*.png")}
        assert figures == {file.stem for file in folder.glob("*.svg")}
        assert {"ranking", "maps", "account", "waterfall", "parts_nearest_right"} <= figures
        with np.load(folder / "numbers.npz", allow_pickle=False) as numbers:
            assert numbers["map G energy"].shape == (64, 32)
            assert len(numbers["order"]) == len(index.gallery)
        for table in ("account", "counterfactuals", "removed", "maps", "waterfall"):
            assert (folder / f"{table}.csv").read_text().count("\n") > 2
    Image.open(tmp_path / "cases/00000/maps.png").verify()
    svg = (tmp_path / "cases/00000/account.svg").read_text()
    assert "squared distance</text>" in svg, "text is not kept as text"
    embedded = [base64.b64decode(address.split(",", 1)[1]) for address in page.loaded]
    assert any(data.startswith(b"RIFF") for data in embedded) and any(
        b"<svg" in data for data in embedded
    )


def test_the_account_on_the_page_adds_up_to_the_ranking(small: tuple[Predictor, GalleryIndex]):
    predictor, index = small
    tops = rank_all(index.query, index.gallery)
    row = 2
    case = study_case(predictor, index, row, tops)
    distances = dict(zip(case.ranking.order.tolist(), case.ranking.distances.tolist(), strict=True))
    for name, other in (("nearest right", case.right), ("nearest wrong", case.wrong)):
        account = case.accounts[name]
        assert sum(account.terms.values()) == pytest.approx(account.squared_distance, abs=1e-10)
        assert account.squared_distance**0.5 == pytest.approx(distances[other], abs=1e-4)
    assert case.effects["unchanged"].ap == pytest.approx(case.ranking.ap)
    assert case.removed == {} and set(case.round_trips) == {"SS1", "CC2_1", "CC2_2"}


def test_maps_are_told_in_numbers():
    flat, top = np.ones((64, 32), np.float32), np.zeros((64, 32), np.float32)
    top[:16] = 2
    labels = np.zeros((128, 64), np.uint8)
    labels[:16] = Region.HEAD_SHOULDER
    table = summary_table({"flat": flat, "top": top}, labels)
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows()}
    assert (rows["flat"]["spread"], rows["flat"]["centre y"]) == (
        pytest.approx(1),
        pytest.approx(32),
    )
    assert rows["top"]["centre y"] == pytest.approx(8) and rows["top"]["spread"] < 0.9
    assert rows["top"]["head_shoulder %"] == pytest.approx(50)
    assert rows["flat"]["head_shoulder %"] == pytest.approx(12.5)
    assert list(summary_table({"flat": flat}, None).columns) == [
        "map",
        "spread",
        "centre x",
        "centre y",
    ]


def test_grams_of_blocks_are_those_of_the_whole_gallery(small: tuple[Predictor, GalleryIndex]):
    predictor, index = small
    maps = embedding_maps(predictor.model)

    def vectors(samples):  # type: ignore[no-untyped-def]
        images = torch.cat([prepared(predictor, one.path) for one in samples])
        return part_vectors(maps, trace(predictor.model, images))

    (found,) = gallery_grams(index, [1])
    whole = query_grams(vectors([index.dataset.query[1]]), vectors(index.dataset.gallery))
    assert found.distances() == pytest.approx(whole.distances(), rel=1e-4, abs=1e-4)
    assert found.distances([0, 1]) == pytest.approx(whole.distances([0, 1]), rel=1e-3, abs=1e-3)


def test_every_streams_features_are_its_share_of_the_embedding(
    small: tuple[Predictor, GalleryIndex],
):
    predictor, index = small
    samples = index.dataset.query[:5]
    found = {name: values[:5] for name, values in stream_features(index, "query").items()}
    images = torch.cat([prepared(predictor, one.path) for one in samples])
    output = trace(predictor.model, images)
    shares = embedding_maps(predictor.model).parts(output)
    assert list(found) == ["G", "P1", "P2"]
    shares["G"] = output.output.descriptor[:, : shares["G"].shape[1]]
    for name, share in shares.items():
        assert torch.allclose(found[name], share / share.norm(dim=1, keepdim=True), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"local_branch": False, "cca": False},
        {"global_branch": False, "ssa": False, "cca": False},
        {"ssa": False, "cca": False},
        {"attention": "non_local"},
        {"parts": 1},
        {"neck": "batch_norm"},
    ],
    ids=lambda change: ", ".join(map(str, change)),
)
def test_every_kind_of_network_can_be_reported(world: Path, tmp_path: Path, change: dict):
    predictor, index = opened(world, tmp_path, **change)
    path, _ = write_diagnosis(
        predictor,
        index,
        ReportOptions(tmp_path / "out"),
        cases=1,
        with_map=False,
        by=["view"],
        say=lambda _: None,
    )
    assert read(path).images


@pytest.mark.slow
def test_a_diagnosis_holds_its_tables_and_a_map(
    small: tuple[Predictor, GalleryIndex], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CCAN_CACHE", str(tmp_path / "cache"))
    predictor, index = small
    options = ReportOptions(tmp_path / "out", interactive=True)
    path, found = write_diagnosis(
        predictor, index, options, cases=1, by=["view"], say=lambda _: None
    )
    for table in found.tables():
        assert (tmp_path / "out/tables" / f"{table.name}.csv").is_file(), table.name
    assert json.loads((tmp_path / "out/tables/projection.json").read_text())["columns"]["row"]
    assert found.suspects.streams == ("G", "P1", "P2")
    text = path.read_text(encoding="utf-8")
    assert text.count("plotly.js v") == 1 and text.count("Plotly.newPlot(") >= 1
    page = Page("two", tmp_path / "two", interactive=True)
    figure = {"data": [{"x": [1], "y": [2]}]}
    for _ in range(2):
        page.plotly(figure, "caption")
    twice = page.write().read_text(encoding="utf-8")
    assert twice.count("plotly.js v") == 1, "plotly.js is in the page more than once"
    cmc = json.loads((tmp_path / "out/tables/cmc.json").read_text())["columns"]["queries matched"]
    assert cmc == found.report.cmc.tolist()
    assert not [address for address in read(path).loaded if not address.startswith("data:")]
    for figure in ("cmc", "kinds", "cameras", "distances", "map"):
        assert (tmp_path / "out/figures" / f"{figure}.svg").is_file()


def test_blurred_heads_cannot_be_told_apart_and_the_rest_stays():
    stripes = np.zeros((128, 64, 3), np.uint8)
    stripes[:, ::4] = 255
    photo = Image.fromarray(stripes)
    found = np.asarray(blurred(photo)).astype(int)
    assert np.array_equal(found[32:], stripes[32:])
    assert np.ptp(found[:32]) < 40, "the head's stripes are still seen"
    assert np.array_equal(np.asarray(photo), stripes), "the picture itself was changed"


@pytest.mark.slow
def test_a_report_with_blurred_faces_takes_every_picture_through_the_blur(
    small: tuple[Predictor, GalleryIndex], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    predictor, index = small
    shown: list[np.ndarray] = []
    import ccan.figures as figures

    for name in ("ranking_strip", "map_panels"):
        real = getattr(figures, name)

        def watch(*args, _real=real, **kwargs):  # type: ignore[no-untyped-def]
            pictures = [args[0], *(args[1] if isinstance(args[1], list) else [])]
            shown.extend(np.asarray(one) for one in pictures)
            return _real(*args, **kwargs)

        monkeypatch.setattr(f"ccan.reports.case.{name}", watch)
    write_explanations(
        predictor,
        index,
        [0],
        ReportOptions(tmp_path, top=4, blur_faces=True),
        say=lambda _: None,
    )
    assert len(shown) == 6
    originals = [index.dataset.query[0], *index.dataset.gallery]
    heads = [np.asarray(blurred(Image.open(one.path).convert("RGB")))[:16] for one in originals]
    for picture in shown:
        assert any(np.array_equal(picture[:16], head) for head in heads), (
            "a picture was not blurred"
        )


def test_names_are_escaped_and_tables_are_cut(tmp_path: Path):
    page = Page("<script>alert(1)</script>", tmp_path)
    page.section("a <b>")
    page.text("x & <i>")
    page.table(Table("t", {"name": ["<img src=x>"] * 20, "n": range(20)}, "note"), rows=3)
    page.table(Table.of_rows("none", ["a"], []))
    text = page.write().read_text()
    assert "<script" not in text and "<b>" not in text and "<img" not in text and "<i>" not in text
    assert "3 of 20 rows; all are in tables/t.csv." in text and "Nothing was found." in text
    assert (tmp_path / "tables/t.csv").read_text().count("\n") == 21
    assert re.search(r'href="#s1">a &lt;b&gt;', text)


def test_queries_are_chosen_by_name_and_by_difficulty(small: tuple[Predictor, GalleryIndex]):
    _, index = small
    name = index.dataset.query[4].path.name
    rows = choose_queries(index, [name], 3)
    assert rows[0] == 4 and 3 <= len(rows) <= 4 and len(set(rows)) == len(rows)
    assert choose_queries(index, [name], 0) == [4]
    with pytest.raises(
        DatasetError, match=r"there is no query 'x.jpg'.* is called for example '0001_"
    ):
        choose_queries(index, ["x.jpg"], 0)


def test_a_folder_that_holds_something_else_is_left_alone(
    small: tuple[Predictor, GalleryIndex], tmp_path: Path
):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds thesis\.tex, which is no report's"):
        write_explanations(*small, [0], ReportOptions(tmp_path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ConfigError, match="expected at least one query to explain"):
        write_explanations(*small, [], ReportOptions(tmp_path / "new"))
    with pytest.raises(ConfigError, match="--top must be at least 1"):
        write_explanations(*small, [0], ReportOptions(tmp_path / "new", top=0))
    tops = rank_all(small[1].query, small[1].gallery)
    with pytest.raises(ShapeError, match="expected a query row in 0…"):
        study_case(*small, 999, tops)


@pytest.mark.slow
def test_commands_parse_and_run(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CCAN_CACHE", str(tmp_path / "cache"))
    asked = parse(["explain", "--out", "x", "--query", "a.jpg", "b.jpg", "--blur-faces"])
    assert (
        isinstance(asked, Explain)
        and asked.of.dataset == "demo"
        and asked.query == ("a.jpg", "b.jpg")
        and asked.blur_faces
    )
    asked = parse(["diagnose", "--out", "x", "--no-map", "--by", "view", "--compare", "other"])
    assert isinstance(asked, Diagnose) and not asked.map and asked.compare == "other"
    nets = [str(write_checkpoint(tmp_path / f"{seed}.safetensors", seed)) for seed in (1, 2)]
    common = ["--dataset", "synthetic", "--data", str(world), "--checkpoint", nets[0]]
    assert (
        main(
            [
                "diagnose",
                "--out",
                str(tmp_path / "d"),
                *common,
                "--no-map",
                "--cases",
                "0",
                "--compare",
                nets[1],
            ]
        )
        == 0
    )
    assert "queries fail at rank 1" in capsys.readouterr().out
    assert "McNemar p" in (tmp_path / "d/report.html").read_text()
    assert (tmp_path / "d/tables/checkpoints.csv").is_file()
    assert main(["explain", "--out", str(tmp_path / "e"), *common, "--query", "nobody.jpg"]) == 2
    assert "there is no query 'nobody.jpg'" in capsys.readouterr().err
    assert main(["trust", "--out", str(tmp_path / "t"), *common, "--queries", "1"]) == 2
    assert (
        main(["trust", "--out", str(tmp_path / "t"), *common, "--queries", "3", "--tested", "2"])
        == 0
    )
    assert {file.name for file in (tmp_path / "t").iterdir()} >= {
        "trust.md",
        "faithfulness.csv",
        "grounding.json",
    }
