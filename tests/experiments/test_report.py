"""Tables of ablations: means and spreads by hand, pairs by seed, the paper's figures only on the paper's data."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccan.charts import save_ablation_chart
from ccan.cli import main
from ccan.config import Recipe, TrainConfig
from ccan.errors import ConfigError
from ccan.experiments.ablations import ABLATIONS, cell_of
from ccan.experiments.report import ablation_table
from ccan.experiments.sweep import begin_sweep, read_sweep
from ccan.files import write_json
from tests.evaluation.reports import report_of

BASE = Recipe(train=TrainConfig(epochs=4))
IDENTITIES = np.repeat(np.arange(6), 2)


def write_cell(
    folder: Path, label: str, seed: int, ap: np.ndarray, ablation: str = "table6", train: str = "t"
) -> Path:
    """A finished cell whose queries have these average precisions; those above a half are right at rank 1."""
    variant = ABLATIONS[ablation].variant(label)  # type: ignore[index]
    cell = cell_of(BASE, variant, seed)
    report = report_of(ap, IDENTITIES, np.where(ap > 0.5, 1, 2))
    report.save_per_query(folder / cell.folder / "per_query.npz")
    path = folder / cell.folder / "result.json"
    write_json(
        path,
        {
            "format": 1,
            "cell": cell.name,
            "seed": seed,
            "train": train,
            "test": "q",
            "figures": report.to_dict(),
            "parameters": 1000 + seed,
            "gflop": 0.25,
            "images_per_second": 100.0 + 10 * seed,
        },
    )
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    begin_sweep(tmp_path, BASE, "synthetic")
    for seed, (lower, higher) in enumerate([(0.4, 0.6), (0.5, 0.9)]):
        write_cell(tmp_path, "G", seed, np.full(12, lower))
        write_cell(tmp_path, "CCAN", seed, np.full(12, higher))
    write_cell(tmp_path, "G+L", 7, np.full(12, 0.3))
    return tmp_path


def test_means_spreads_and_pairs_by_hand(folder: Path):
    rows = {row.label: row for row in ablation_table(read_sweep([folder]), "table6").rows}
    assert rows["G"].seeds == (0, 1)
    assert rows["G"].mAP == pytest.approx((40, 50))
    assert rows["CCAN"].rank1 == pytest.approx((100, 100))
    pair = rows["G"].against
    assert pair is not None
    # (0.4 + 0.5) / 2 - (0.6 + 0.9) / 2, the same for every identity, so the interval has no width.
    assert pair.mAP.difference.value == pytest.approx(-0.3)
    assert (pair.mAP.difference.low, pair.mAP.difference.high) == pytest.approx((-0.3, -0.3))
    assert (pair.queries, pair.identities) == (24, 6)
    assert (pair.fixed, pair.broken) == (0, 24)
    assert rows["CCAN"].against is None, "it is what the others are compared with"
    assert rows["G+L"].against is None, "its only seed is none of CCAN's"
    assert rows["L"].seeds == () and rows["L"].parameters is None
    assert rows["G"].images_per_second == 105


def test_pairs_use_the_common_seeds_only(folder: Path):
    write_cell(folder, "G", 2, np.full(12, 0.0))
    rows = {row.label: row for row in ablation_table(read_sweep([folder]), "table6").rows}
    assert rows["G"].seeds == (0, 1, 2)
    assert rows["G"].against is not None
    assert rows["G"].against.mAP.a == pytest.approx(0.75)
    assert rows["G"].against.mAP.b == pytest.approx(0.45)


def test_markdown_and_csv_say_the_same(folder: Path):
    table = ablation_table(read_sweep([folder]), "table6")
    text = table.to_markdown()
    assert "| G | 2 | 45.0 ± 7.1 |" in text
    assert "-30.0 (-30.0 … -30.0)" in text
    assert "| L | 0 | – | – | – | – | – | – | – |" in text
    assert "synthetic, 4 epochs" in text
    lines = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [line["variant"] for line in lines] == [row.label for row in table.rows]
    assert float(lines[0]["mAP"]) == pytest.approx(45)
    assert float(lines[0]["mAP_sd"]) == pytest.approx(np.std([40, 50], ddof=1))
    assert lines[1]["mAP"] == ""


@pytest.mark.parametrize("dataset", ["synthetic", "market1501"])
def test_the_papers_figures_stand_beside_ours_on_its_own_data_only(tmp_path: Path, dataset: str):
    begin_sweep(tmp_path, BASE, dataset)
    for label in ("G", "CCAN"):
        write_cell(tmp_path, label, 0, np.linspace(0.2, 0.7, 12))
    table = ablation_table(read_sweep([tmp_path]), "table6")
    on_its_data = dataset == "market1501"
    assert (table.rows[-1].paper == (87.0, 94.6)) is on_its_data
    assert ("| 87.0 | 94.6 |" in table.to_markdown()) is on_its_data
    assert ("paper: mAP" in table.to_markdown()) is on_its_data


def test_folders_that_were_begun_alike_are_taken_together(folder: Path, tmp_path: Path):
    other = tmp_path / "other machine"
    begin_sweep(other, BASE, "synthetic")
    write_cell(other, "G", 9, np.full(12, 0.1))
    rows = ablation_table(read_sweep([folder, other]), "table6").rows
    assert rows[0].seeds == (0, 1, 9)


def test_what_cannot_be_compared_is_refused(folder: Path, tmp_path: Path):
    other = tmp_path / "other"
    begin_sweep(other, replace(BASE, name="other"), "synthetic")
    with pytest.raises(ConfigError, match="are different sweeps: name"):
        read_sweep([folder, other])
    with pytest.raises(ConfigError, match="has no finished cell yet"):
        read_sweep([other])
    with pytest.raises(ConfigError, match="expected the settings of a sweep"):
        read_sweep([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="got none"):
        read_sweep([])
    write_cell(folder, "L", 0, np.full(12, 0.1), train="other images")
    with pytest.raises(ConfigError, match="on different images"):
        read_sweep([folder])


def test_a_sweep_goes_on_with_its_own_settings_only(folder: Path):
    begin_sweep(folder, BASE, "synthetic")
    elsewhere = replace(BASE, train=replace(BASE.train, device="cpu"))
    begin_sweep(folder, elsewhere, "synthetic")
    longer = replace(BASE, train=replace(BASE.train, epochs=5))
    with pytest.raises(ConfigError, match=r"train\.epochs: 4 → 5"):
        begin_sweep(folder, longer, "synthetic")
    with pytest.raises(ConfigError, match="dataset: 'synthetic' → 'market1501'"):
        begin_sweep(folder, BASE, "market1501")
    assert json.loads((folder / "sweep.json").read_text())["recipe"]["train"]["epochs"] == 4


def test_charts_are_pictures(folder: Path, tmp_path: Path):
    table = ablation_table(read_sweep([folder]), "table6")
    for name in ("a.png", "a.svg"):
        save_ablation_chart(table, tmp_path / name)
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 200
        assert len(picture.convert("RGB").getcolors(2**24) or []) > 20
    assert "<svg" in (tmp_path / "a.svg").read_text()


def test_the_command_writes_every_table_that_has_two_rows(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["report", str(folder)]) == 0
    assert "What do the local branch" in capsys.readouterr().out
    written = sorted(path.name for path in (folder / "report").iterdir())
    # G+L and CCAN are two of the three rows of "attention".
    assert written == [
        f"{name}.{kind}" for name in ("attention", "table6") for kind in ("csv", "md", "png")
    ]
    assert main(["report", str(folder), "--ablation", "parts"]) == 2
    assert "expected at least two finished rows of parts" in capsys.readouterr().err
