"""A bare GPU node can import and train: what `import ccan` pulls in, and that its names resolve."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ccan

ROOT = Path(__file__).parents[2]
EXTRAS = [
    *("gradio", "plotly", "tensorboard", "pytorch_grad_cam", "sklearn", "scipy", "cv2"),
    *("matplotlib", "pandas", "jupyter", "jupyterlab", "IPython", "pymilvus", "milvus_lite"),
]


def run_python(code: str, blocked: list[str]) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in which the blocked packages cannot be imported, as if never installed."""
    program = f"import sys\nsys.modules.update(dict.fromkeys({blocked!r}))\n{code}"
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)


def test_the_block_works():
    refused = run_python("import scipy", ["scipy"])
    assert refused.returncode == 1
    assert "ModuleNotFoundError: import of scipy halted" in refused.stderr


def test_import_ccan_needs_no_extra_and_loads_nothing_heavy():
    code = (
        "import ccan, sys\n"
        "print(*sorted({name.split('.')[0] for name, module in sys.modules.items() if module}))"
    )
    ran = run_python(code, [*EXTRAS, "tyro"])
    assert ran.returncode == 0, ran.stderr
    loaded = set(ran.stdout.split())
    assert "ccan" in loaded
    assert not loaded & {*EXTRAS, "tyro", "torchvision"}


def test_importing_a_name_does_not_load_torchvision_where_it_is_not_needed():
    code = "from ccan import FeatureSet, Recipe, evaluate_features; import sys; print('torchvision' in sys.modules)"
    ran = run_python(code, EXTRAS)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["False"]


def test_everything_that_trains_and_evaluates_works_without_the_extras():
    code = (
        "import ccan\n"
        "for name in ccan.__all__: getattr(ccan, name)\n"
        "import ccan.cli, ccan.training.loop, ccan.experiments.recipes, ccan.data.synthetic"
    )
    ran = run_python(code, EXTRAS)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", ccan.__all__)
def test_every_public_name_resolves(name: str):
    assert getattr(ccan, name).__module__.startswith("ccan.")
    assert name in dir(ccan)


def test_the_names_that_people_begin_with_are_there():
    first = "CCAN CCANLoss CCANOutput FeatureSet ModelConfig Predictor Recipe build_ccan evaluate_features load_dataset"
    assert set(first.split()) <= set(ccan.__all__)
    assert len(ccan.__all__) <= 20


def test_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(AttributeError, match=r"no attribute 'Predicter'; it offers .*Predictor"):
        ccan.Predicter  # noqa: B018


def test_the_type_marker_and_the_bundled_model_are_package_data():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    patterns = tool["setuptools"]["package-data"]["ccan"]
    package = ROOT / "ccan"
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    assert package / "py.typed" in shipped
    assert package / "assets" / "demo" / "model.safetensors" in shipped
