"""CUHK03's .mat files: images extracted once and whole, and files that are damaged, cut off or not what they say."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ccan.data import cuhk03_mat as cuhk03_mat_file
from ccan.data import load_dataset
from ccan.errors import DatasetError
from tests.data.layouts import (
    CUHK_PEOPLE,
    cuhk03_lists,
    cuhk03_mat,
    cuhk03_raw,
    cuhk_names,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CCAN_CACHE", str(tmp_path / "cache_c3"))
    return tmp_path / "cache_c3"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return cuhk03_raw(tmp_path / "1_001_2_c2")


def load(root: Path, **options: Any):
    return load_dataset("cuhk03", root, progress=False, **options)


def opened(path: Path, mode: str = "r") -> Any:
    import h5py

    return h5py.File(path, mode)


class TestCache:
    def test_images_are_written_once(self, raw: Path, cache: Path):
        first = load(raw)
        times = {path: path.stat().st_mtime_ns for path in cache.rglob("*.png")}
        assert load(raw) == first
        assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.png")} == times
        assert first.train[0].path.is_relative_to(cache)
        assert len(times) == len(cuhk_names("detected"))  # the other boxes were not asked for

    def test_another_file_is_extracted_anew(self, raw: Path):
        before = load(raw).train[0].path
        mat = raw / "cuhk03_release" / "cuhk-03.mat"
        os.utime(mat, ns=(0, mat.stat().st_mtime_ns + 1_000_000_007))
        assert load(raw).train[0].path.parent != before.parent

    def test_what_breaks_off_leaves_nothing(
        self, raw: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ):
        save, saved = Image.Image.save, []

        def breaks(self: Image.Image, path: Path) -> None:
            saved.append(path)
            if len(saved) == 7:
                raise OSError(28, "No space left on device")
            save(self, path)

        monkeypatch.setattr(Image.Image, "save", breaks)
        with pytest.raises(DatasetError, match="No space left on device; make room"):
            load(raw)
        assert list(cache.rglob("*.png")) == []
        assert list((cache / "cuhk03").iterdir()) == []
        monkeypatch.undo()
        monkeypatch.setenv("CCAN_CACHE", str(cache))
        assert load(raw).train


class TestDamage:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"train_idx": [[0.0], [1.0]]},
                "train_idx must hold whole numbers from 1 to 56, got 0",
            ),
            ({"gallery_idx": [[57.0]]}, "gallery_idx must hold whole numbers from 1 to 56, got 57"),
            ({"query_idx": [[1.5]]}, "query_idx must hold whole numbers from 1 to 56"),
            ({"query_idx": [[np.nan]]}, "query_idx must hold whole numbers"),
            (
                {"query_idx": np.zeros((0, 1))},
                "query_idx must hold whole numbers from 1 to 56, got 0",
            ),
            ({"query_idx": "text"}, "query_idx must hold whole numbers"),
            ({"labels": [[1.0]] * 3}, "of one length, got 3, 56, 56"),
            ({"labels": [[0.0]] * 56}, "labels must hold whole numbers from 1"),
            ({"filelist": np.ones((56, 1))}, "filelist must hold file names, got"),
            (
                {"filelist": np.array(["../x.png"] * 56, object)},
                "such as 1_001_1_01.png, got '../x",
            ),
            ({"filelist": {"a": 1}}, "filelist"),
        ],
    )
    def test_lists_that_make_no_sense(self, raw: Path, changes: dict[str, Any], message: str):
        assert len(cuhk_names("detected")) == 56
        cuhk03_lists(raw / "cuhk03_new_protocol_config_detected.mat", "detected", **changes)
        with pytest.raises(DatasetError) as raised:
            load(raw)
        assert message in str(raised.value)

    def test_lists_with_a_variable_missing(self, raw: Path):
        from scipy.io import savemat

        savemat(raw / "cuhk03_new_protocol_config_detected.mat", {"labels": [1.0]})
        with pytest.raises(DatasetError, match=r"got no camId, filelist, train_idx"):
            load(raw)

    @pytest.mark.parametrize("share", [3, 29, 53, 71, 97])
    @pytest.mark.parametrize("name", ["cuhk03_new_protocol_config_detected.mat", "cuhk-03.mat"])
    def test_files_that_are_cut_off(self, raw: Path, name: str, share: int):
        """Only cut, not scrambled: that can crash the libraries themselves."""
        path = next(raw.rglob(name))
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * share // 100])
        with pytest.raises(DatasetError, match=name):
            load(raw)

    @pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file", b"\x80\x04N.", b"\0" * 1_009])
    def test_files_of_another_kind(self, raw: Path, content: bytes):
        (raw / "cuhk03_new_protocol_config_detected.mat").write_bytes(content)
        with pytest.raises(DatasetError, match="expected a MAT file of version 5, got"):
            load(raw)
        (raw / "cuhk03_release" / "cuhk-03.mat").write_bytes(content)
        with pytest.raises(DatasetError, match=r"expected CUHK03's MAT file of version 7\.3"):
            load(raw, protocol="classic")

    def test_a_file_that_ends_its_reader(self, raw: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(cuhk03_mat_file, "_TRIAL", "import os; os.abort()")
        with pytest.raises(DatasetError, match=r"read by a program, end it \(exit status -6\)"):
            load(raw)

    def test_an_image_of_another_shape(self, raw: Path):
        with opened(raw / "cuhk03_release" / "cuhk-03.mat", "r+") as file:
            table = file[file["detected"][0, 1]]
            for wrong in (np.zeros((4, 5, 7), np.uint8), np.zeros((3, 5, 7), np.float32)):
                table[0, 0] = file.create_dataset(f"wrong{wrong.dtype}", data=wrong).ref
                file.flush()
        with pytest.raises(DatasetError, match=r"8-bit arrays \(3, width, height\), got float32"):
            load(raw)

    def test_an_array_that_another_file_holds_is_refused(self, raw: Path, tmp_path: Path):
        (tmp_path / "secret").write_bytes(bytes(range(210)))
        with opened(raw / "cuhk03_release" / "cuhk-03.mat", "r+") as file:
            foreign = file.create_dataset(
                "foreign", (3, 7, 10), np.uint8, external=[(str(tmp_path / "secret"), 0, 210)]
            )
            file[file["detected"][0, 0]][0, 0] = foreign.ref
        with pytest.raises(DatasetError, match="/foreign lies in another file"):
            load(raw)

    def test_people_of_a_test_set_who_are_not_there(self, raw: Path):
        with opened(raw / "cuhk03_release" / "cuhk-03.mat", "r+") as file:
            file[file["testsets"][0, 2]][:, 0] = (5, 2)
        with pytest.raises(DatasetError, match="testsets name person 2 of camera pair 5"):
            load(raw, protocol="classic", split=2)

    @pytest.mark.parametrize(("package", "needs"), [("h5py", "h5py"), ("scipy.io", "SciPy")])
    def test_a_missing_package_names_the_extra(
        self, raw: Path, monkeypatch: pytest.MonkeyPatch, package: str, needs: str
    ):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(DatasetError, match=rf'needs {needs}; .*pip install "ccan\[datasets\]"'):
            load(raw)


def test_the_fixture_is_transposed_as_matlab_writes_it(tmp_path: Path):
    """So that a loader that forgets to turn images over fails above."""
    with opened(cuhk03_mat(tmp_path / "a.mat")) as file:
        table = file[file["labeled"][0, 0]]
        assert table.shape == (10, CUHK_PEOPLE[0])
        assert file[table[0, 0]].shape == (3, 5 + 1, 11 + 1)
        assert file[table[4, 0]].shape == (2,)


def test_a_module_in_the_current_folder_is_not_run(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    (folder / "scipy.py").write_text("open('ran', 'w').close()")
    monkeypatch.chdir(folder)
    load(raw)
    assert not (folder / "ran").exists()


def test_a_table_of_another_shape_is_refused_before_it_is_read(raw: Path) -> None:
    mat = raw / "cuhk03_release" / "cuhk-03.mat"
    with opened(mat, "r+") as file:
        cells = file["detected"][()].ravel()
        table = file[cells[0]]
        name, turned = table.name, table[()].T
        del file[name]
        file[name] = turned
        file["detected"][0, 0] = file[name].ref
    with pytest.raises(DatasetError, match="expected 10 images a person"):
        load(raw)
