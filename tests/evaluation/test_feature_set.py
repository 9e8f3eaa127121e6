"""Feature sets take what people have and refuse what has no meaning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ccan.errors import ProtocolError, ShapeError
from ccan.evaluation import FeatureSet


class TestFeatureSet:
    @pytest.mark.parametrize("make", [torch.tensor, np.array, list])
    def test_takes_tensors_arrays_and_lists(self, make):
        made = FeatureSet(make([[1.0, 2.0], [3.0, 4.0]]), make([5, -1]), make([1, 15]), ["a", "b"])
        assert made.features.tolist() == [[1, 2], [3, 4]]
        assert made.identities.tolist() == [5, -1] and made.identities.dtype == np.int64
        assert made.cameras.tolist() == [1, 15]
        assert made.names == ("a", "b")
        assert len(made) == 2

    def test_dtype_is_kept_and_half_precision_widened(self):
        for given, kept in (
            (torch.float64, torch.float64),
            (torch.float32, torch.float32),
            (torch.float16, torch.float32),
            (torch.bfloat16, torch.float32),
        ):
            assert FeatureSet(torch.ones(2, 3, dtype=given), [1, 2], [1, 1]).features.dtype == kept

    def test_it_does_not_hold_on_to_a_graph(self):
        weights = torch.ones(2, 3, requires_grad=True)
        assert not FeatureSet(weights * 2, [1, 2], [1, 1]).features.requires_grad

    def test_select_by_rows_and_by_mask(self):
        made = FeatureSet(torch.eye(3), [1, 2, 3], [4, 5, 6], list("abc"))
        for rows in ([2, 0], np.array([2, 0]), torch.tensor([2, 0])):
            part = made.select(rows)
            assert part.features.tolist() == [[0, 0, 1], [1, 0, 0]]
            assert (part.identities.tolist(), part.cameras.tolist()) == ([3, 1], [6, 4])
            assert part.names == ("c", "a")
        assert made.select(made.identities > 1).names == ("b", "c")
        assert len(made.select([])) == len(made.select(made.identities > 9)) == 0

    def test_numpy_gives_arrays_for_savez(self, tmp_path: Path):
        made = FeatureSet(torch.eye(2), [1, 2], [4, 5], ["a", "b"])
        np.savez(tmp_path / "set.npz", allow_pickle=False, **made.numpy())
        with np.load(tmp_path / "set.npz") as saved:
            again = FeatureSet(**saved)
        assert torch.equal(again.features, made.features) and again.names == made.names
        assert "names" not in FeatureSet(torch.eye(2), [1, 2], [4, 5]).numpy()

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_values_that_are_not_finite_are_an_error(self, bad: float):
        features = torch.ones(5, 3)
        features[1, 2] = features[4, 0] = bad
        with pytest.raises(
            ProtocolError, match=r"infinity in 2 of 5 rows \(the first is row 1\); look"
        ):
            FeatureSet(features, [1] * 5, [1] * 5)

    def test_lengths_and_shapes(self):
        with pytest.raises(ShapeError, match=r"identities must have shape \(3,\), .* got \(2,\)"):
            FeatureSet(torch.ones(3, 2), [1, 2], [1, 1, 1])
        with pytest.raises(ShapeError, match=r"cameras must have shape \(3,\), .* got \(3, 1\)"):
            FeatureSet(torch.ones(3, 2), [1, 2, 3], [[1], [1], [1]])
        with pytest.raises(ShapeError, match="one entry for each of the 3 rows of features, got 1"):
            FeatureSet(torch.ones(3, 2), [1, 2, 3], [1, 1, 1], ["a"])
        for shape in ((3,), (3, 2, 2), (3, 0)):
            with pytest.raises(ShapeError, match=r"features must have shape \(N, D\)"):
                FeatureSet(torch.ones(shape), [1, 2, 3], [1, 1, 1])

    def test_kinds_of_numbers(self):
        with pytest.raises(
            ProtocolError, match=r"must be floating point, got torch\.int64; convert"
        ):
            FeatureSet([[1, 2]], [1], [1])
        with pytest.raises(ProtocolError, match="identities must be integers, got float64"):
            FeatureSet(torch.ones(1, 2), [1.0], [1])
        with pytest.raises(ProtocolError, match="cameras must be integers, got bool"):
            FeatureSet(torch.ones(1, 2), [1], torch.tensor([True]))

    def test_metadata_is_carried_by_everything(self):
        made = FeatureSet(
            torch.eye(3),
            [1, 2, 3],
            [4, 5, 6],
            list("abc"),
            {"view": ["front", "", "left"], "angle": torch.tensor([0, 90, 45]), "old": [True] * 3},
        )
        assert made.metadata["view"].tolist() == ["front", "", "left"]
        assert made.metadata["angle"].dtype == np.float64
        assert made.metadata["old"].tolist() == [1, 1, 1]
        part = made.select([2, 0]).to("cpu").normalized().with_features(torch.ones(2, 7))
        assert part.metadata["view"].tolist() == ["left", "front"]
        assert part.metadata["angle"].tolist() == [45, 0]
        assert part.names == ("c", "a") and part.features.shape == (2, 7)
        assert made.numpy()["meta_view"].tolist() == ["front", "", "left"]
        assert FeatureSet(torch.eye(2), [1, 2], [1, 1]).metadata == {}

    def test_metadata_of_the_wrong_length_or_kind(self):
        with pytest.raises(ShapeError, match=r"metadata 'view' must have shape \(2,\), .* \(3,\)"):
            FeatureSet(torch.eye(2), [1, 2], [1, 1], metadata={"view": list("abc")})
        with pytest.raises(
            ProtocolError, match="'view' must be numbers or text, got object; a miss"
        ):
            FeatureSet(torch.eye(2), [1, 2], [1, 1], metadata={"view": np.array(["a", None])})

    def test_features_get_unit_length_only_when_asked(self):
        made = FeatureSet([[3.0, 4.0], [0.0, 0.0], [1e-9, 0.0]], [1, 2, 3], [1, 1, 1])
        assert made.features[0].tolist() == [3, 4]
        np.testing.assert_allclose(made.normalized().features, [[0.6, 0.8], [0, 0], [1, 0]])
        assert made.features[0].tolist() == [3, 4]

    def test_an_empty_set_is_legal(self):
        assert len(FeatureSet(torch.zeros(0, 4), [], [])) == 0
