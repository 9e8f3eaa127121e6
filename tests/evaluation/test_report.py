"""What a report gives away: JSON, a table, per-query files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ccan.errors import ConfigError
from ccan.evaluation import EvaluationReport, FeatureSet, evaluate_features

ARRAYS = ("ap", "inp", "first_match", "matches", "kept", "identities", "cameras")


@pytest.fixture
def report() -> EvaluationReport:
    """Query a: match at 2 of 3. Query b: matches at 1 and 3 of 4. Query c: none."""
    gallery = FeatureSet(
        [[1.0], [2.0], [3.0], [8.0], [9.0]], [9, 1, 2, 2, 1], [2, 2, 2, 2, 1], list("vwxyz")
    )
    query = FeatureSet([[0.0], [7.0], [5.0]], [1, 2, 3], [1, 1, 1], ["a", "b", "ć"])
    return evaluate_features(query, gallery)


def test_json_has_the_promised_keys_as_fractions(report: EvaluationReport):
    values = report.to_dict()
    assert list(values) == [
        *("mAP", "mINP", "rank1", "rank5", "rank10", "rank20", "valid_queries", "conventions")
    ]
    ap_b = (1 + 2 / 3) / 2  # distances 6 5 4 1 2 for b: y, z, x, w, v
    assert values["mAP"] == pytest.approx((1 / 2 + ap_b) / 2)
    assert values["mINP"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert (values["rank1"], values["rank5"], values["rank20"]) == (0.5, 1, 1)
    assert values["valid_queries"] == 2
    assert values["conventions"]["distance"] == "euclidean"
    assert json.loads(json.dumps(values)) == values


def test_summary_is_a_table_in_per_cent_with_its_conventions(report: EvaluationReport):
    lines = report.summary().splitlines()
    assert lines[0].split() == ["mAP", "mINP", "rank1", "rank5", "rank10", "rank20"]
    assert lines[1].split() == ["66.67", "58.33", "50.00", "100.00", "100.00", "100.00"]
    assert lines[2].startswith("2 of 3 queries have a match")
    assert "ap: rank-sum" in lines


def test_npz_holds_every_query_without_pickle(report: EvaluationReport, tmp_path: Path):
    report.save_per_query(tmp_path / "new" / "queries.npz")
    with np.load(tmp_path / "new" / "queries.npz", allow_pickle=False) as saved:
        assert sorted(saved) == sorted([*ARRAYS, "names"])
        for name in ARRAYS:
            np.testing.assert_array_equal(saved[name], getattr(report, name))
        assert saved["names"].tolist() == ["a", "b", "ć"]


def test_json_per_query_writes_null_for_nan(report: EvaluationReport, tmp_path: Path):
    report.save_per_query(tmp_path / "queries.json")
    saved = json.loads((tmp_path / "queries.json").read_text(encoding="utf-8"))
    assert saved["ap"][0] == 0.5 and saved["ap"][2] is None
    assert saved["first_match"] == [2, 1, -1]
    assert saved["names"] == ["a", "b", "ć"]


def test_a_failed_write_leaves_the_old_file(
    report: EvaluationReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "queries.npz"
    report.save_per_query(path)
    before = path.read_bytes()

    def disk_full(file, **arrays):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", disk_full)
    with pytest.raises(OSError, match="no space"):
        report.save_per_query(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["queries.npz"]


def test_another_suffix_is_refused(report: EvaluationReport, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"written as \.npz or \.json, got 'queries.csv'"):
        report.save_per_query(tmp_path / "queries.csv")
    assert not list(tmp_path.iterdir())


def test_rank_is_defined_for_every_k_from_one(report: EvaluationReport):
    assert [report.rank(k) for k in (1, 2, 3, 4)] == [0.5, 1, 1, 1]
    with pytest.raises(ConfigError, match="rank k must be at least 1, got 0"):
        report.rank(0)
    assert math.isnan(report.ap[2]) and report.first_match[2] == -1


def test_a_selection_is_the_report_of_these_queries(report: EvaluationReport):
    part = report.select([1, 2])
    assert part.names == ("b", "ć") and part.identities.tolist() == [2, 3]
    assert part.mAP == pytest.approx((1 + 2 / 3) / 2)
    assert part.valid_queries == 1 and part.conventions == report.conventions
    assert report.select(report.valid).names == ("a", "b")


def test_a_report_without_a_match_has_no_averages(report: EvaluationReport):
    part = report.select([2])
    assert math.isnan(part.mAP) and math.isnan(part.mINP) and math.isnan(part.rank(1))
    assert np.isnan(part.cmc).all() and len(part.cmc) == report.max_rank


def test_metadata_of_the_queries_is_kept_and_written(tmp_path: Path):
    gallery = FeatureSet([[1.0], [2.0]], [1, 2], [2, 2])
    query = FeatureSet([[0.0], [3.0]], [1, 2], [1, 1], metadata={"view": ["front", ""]})
    report = evaluate_features(query, gallery)
    report.save_per_query(tmp_path / "queries.json")
    saved = json.loads((tmp_path / "queries.json").read_text(encoding="utf-8"))
    assert saved["meta_view"] == ["front", ""]
    values = report.to_dict(slices=["view", "camera"])
    assert [one["value"] for one in values["slices"]["view"]] == ["front", "missing"]
    assert values["slices"]["camera"][0]["queries"] == 2
    assert "slices" not in report.to_dict()
