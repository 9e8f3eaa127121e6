"""Label maps of a synthetic world are found by their image, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccan.data.synthetic_world import read_labels
from ccan.errors import DatasetError


def test_a_label_map_stands_beside_its_image(tmp_path: Path):
    values = np.arange(8, dtype=np.uint8).repeat(4).reshape(8, 4)
    image = tmp_path / "query" / "a.jpg"
    path = tmp_path / "labels" / "query" / "a.png"
    assert read_labels(image) is None
    path.parent.mkdir(parents=True)
    picture = Image.fromarray(values, "L").convert("P")
    picture.putdata(values.ravel().tolist())
    picture.save(path)
    found = read_labels(image)
    assert found is not None and found.tolist() == values.tolist()
    Image.new("RGB", (4, 8)).save(path)
    with pytest.raises(
        DatasetError, match=r"a\.png: expected a palette picture, got RGB; write the world anew"
    ):
        read_labels(image)
    path.write_text("no picture")
    with pytest.raises(DatasetError, match=r"a\.png: expected a label map"):
        read_labels(image)
