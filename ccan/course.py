"""What every notebook of the course needs and no lesson is about: profiles, worlds, pictures, exercises.

The notebooks themselves lie in `notebooks/`; `ccan.notebooks` runs them. Nothing of the paper is here.
"""

from __future__ import annotations

import io
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from PIL import Image

from ccan.data import ReIDDataset, load_dataset
from ccan.data.synthetic import WorldConfig
from ccan.data.synthetic.demo import cached_world
from ccan.errors import ConfigError
from ccan.figures import SERIES, rendered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Profile = Literal["ci", "reader", "full"]
PROFILES: tuple[Profile, ...] = ("ci", "reader", "full")
Value = TypeVar("Value")

TINY_WORLD = WorldConfig(identities=32, cameras=4, images_per_camera=2, seed=2)
"""What the profile `ci` looks at: drawn in seconds."""
COURSE_WORLD = WorldConfig(identities=240, cameras=6, images_per_camera=2, seed=11)
"""What is trained on in the profile `reader`: 1,440 training images of 120 people."""
SPLITS = ("train", "query", "gallery")

COLOURS = (*SERIES, "#6b7178")
"""The colours of `ccan.figures`, and a grey; the first two mark right and wrong, as in `ccan.plots`."""


def choose(profile: str, *, ci: Value, reader: Value, full: Value | None = None) -> Value:
    """The value for a profile; without a value of its own, `full` takes the reader's. Raises: ConfigError."""
    _check(profile)
    if profile == "ci":
        return ci
    return reader if profile == "reader" or full is None else full


def open_world(
    profile: str, dataset: str = "demo", data: str | Path | None = None, *, train: bool = False
) -> ReIDDataset:
    """The images of a lesson: a tiny world (`ci`), the bundled one, or a dataset of one's own.

    Args:
        profile: `ci`, `reader` or `full`.
        dataset: a name that `load_dataset` knows. With `demo` the people are drawn, once, into the cache folder.
        data: the folder of any other dataset.
        train: whether the lesson trains: `demo` then is the course's world, which has a training half.

    Raises: ConfigError for an unknown profile or a dataset without a folder; DatasetError as `load_dataset`.
    """
    _check(profile)
    if dataset != "demo":
        if data is None:
            raise ConfigError(
                f"expected the folder of {dataset!r}, got none; set `data` in the parameters cell"
            )
        return load_dataset(dataset, data)
    if profile != "ci" and not train:
        return load_dataset("demo")
    config = TINY_WORLD if profile == "ci" else COURSE_WORLD
    return cached_world(config, SPLITS, "course", progress=profile != "ci")


def located(name: str | Path) -> Path:
    """A file or folder named relative to where the notebook runs, else to the checkout that the package lies in."""
    path = Path(name).expanduser()
    beside = Path(__file__).parents[1] / path
    return beside if beside.exists() and not path.exists() else path


def _check(profile: str) -> None:
    if profile not in PROFILES:
        raise ConfigError(f"expected the profile to be ci, reader or full, got {profile!r}")


def show(picture: Image.Image | Figure, width: int = 900) -> None:
    """A picture, or a figure of `ccan.figures`, as static output, at most so many pixels wide."""
    from IPython.display import Image as Shown
    from IPython.display import display

    if not isinstance(picture, Image.Image):
        picture = Image.open(io.BytesIO(rendered(picture, "png")))
    if picture.width > width:
        height = round(picture.height * width / picture.width)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    display(Shown(data=file.getvalue(), width=picture.width))


def use_house_style() -> None:
    """Figures of one look: quiet axes, colours that colour-blind readers can tell apart."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "figure.figsize": (8, 3.6),
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.grid": True,
            "grid.color": "#e4e6e9",
            "axes.axisbelow": True,
            "image.cmap": "cividis",
            "image.interpolation": "nearest",
            "legend.frameon": False,
        }
    )


@contextmanager
def exercise(name: str) -> Iterator[None]:
    """Check a solution: whatever the block raises is said in one line as what is missing, and the notebook goes on.

        with exercise("Exercise 1"):
            assert solution(2) == 4, "solution(2) should be 4"

    Prints `✓ NAME: solved`, or `○ NAME is open: …`.
    """
    try:
        yield
    except Exception as error:
        print(f"○ {name} is open: {_missing(error)}")
    else:
        print(f"✓ {name}: solved")


def _missing(error: Exception) -> str:
    """What an error says is missing, for someone who is in the middle of solving it."""
    words = " ".join(str(error).split())
    if isinstance(error, AssertionError | NotImplementedError) and words:
        return words
    place = traceback.extract_tb(error.__traceback__)[-1]
    line = f" (at `{place.line}`)" if place.line else ""
    return f"{type(error).__name__}: {words}{line}" if words else f"{type(error).__name__}{line}"
