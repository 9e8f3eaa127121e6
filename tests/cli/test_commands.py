"""The command line: settings arrive, dry runs print, errors are one clear line."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ccan.cli import Train, main, parse
from ccan.config import Recipe
from ccan.experiments.recipes import demo, paper, scratch, smoke, strong


def test_contact_sheet(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    arguments = "--identities 8 --cameras 3 --height 128 --width 64"
    assert main(["synth", "--sheet", "--out", str(sheet), *arguments.split()]) == 0
    with Image.open(sheet) as picture:
        assert min(picture.size) > 200
        assert len(picture.convert("RGB").getcolors(2**24) or []) > 100


@pytest.mark.parametrize("recipe", [paper, scratch, strong, demo, smoke])
def test_a_dry_run_prints_the_recipe(
    recipe: Callable[[str], Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    name = recipe("cuhk03").name
    words = f"train --recipe {name} --dataset cuhk03 --data D --out R --dry-run"
    assert main(words.split()) == 0
    assert Recipe.from_json(capsys.readouterr().out) == recipe("cuhk03")


def test_the_papers_recipe_is_the_papers_table() -> None:
    """Section 4.1, value by value (Decisions D1, D10, D11)."""
    recipe = paper("market1501")
    model, data, optim, loss = recipe.model, recipe.data, recipe.optim, recipe.loss
    assert (model.embedding_dim, model.parts, model.reduction) == (1024, 4, 8)
    assert (model.image_height, model.image_width, data.crop_margin) == (256, 128, 288 / 256)
    assert (data.identities_per_batch, data.images_per_identity, data.batch_size) == (16, 4, 64)
    assert (data.flip_probability, data.erasing_probability) == (0.5, 0.5)
    assert (data.erasing_area, data.erasing_aspect) == ((0.02, 0.4), (0.3, 3.3))
    assert (data.erasing_from_epoch, recipe.train.epochs) == (50, 200)
    assert (optim.learning_rate, optim.betas, optim.weight_decay) == (5e-4, (0.9, 0.99), 1e-4)
    assert (optim.decay_start, optim.decay_every, optim.decay_factor) == (150, 50, 0.1)
    assert (loss.label_smoothing, loss.margin, loss.negatives) == (0.1, 1.0, 10)
    assert recipe.train.initial_weights == "imagenet"


def test_cuhk03_has_its_own_rate_and_margin() -> None:
    """Section 4.1: 1e-3 and 1.5 there, 5e-4 and 1 elsewhere (Decision D13)."""
    assert (paper("cuhk03").optim.learning_rate, paper("cuhk03").loss.margin) == (1e-3, 1.5)
    for other in ("market1501", "dukemtmc", "msmt17"):
        assert (paper(other).optim.learning_rate, paper(other).loss.margin) == (5e-4, 1.0)


def test_a_recognised_dataset_has_its_own_recipe(tmp_path: Path) -> None:
    """`--dataset auto` on CUHK03's folder trains with CUHK03's learning rate and margin."""
    (tmp_path / "cuhk-03.mat").touch()
    words = ["train", "--dataset", "auto", "--out", "R", "--data"]
    for data, margin in ((tmp_path, 1.5), (tmp_path / "nothing", 1.0)):
        command = parse([*words, str(data)])
        assert isinstance(command, Train)
        assert command.settings.loss.margin == margin


def test_every_setting_can_be_given_on_the_command_line() -> None:
    words = (
        "train --recipe demo --data D --out R --model.parts 2 --model.no-ssa --loss.margin 1.5 "
        "--data.erasing-area 0.1 0.2 --optim.betas 0.8 0.9 --train.epochs 7 --eval.distance cosine "
        "--val-identities 5"
    )
    command = parse(words.split())
    assert isinstance(command, Train)
    settings = command.settings
    assert (settings.model.parts, settings.model.ssa, settings.loss.margin) == (2, False, 1.5)
    assert settings.data.erasing_area == (0.1, 0.2) and settings.optim.betas == (0.8, 0.9)
    assert settings.eval.distance == "cosine" and settings.train.epochs == 7
    assert settings.model.width_multiplier == 0.25  # the demo recipe's own
    assert command.val_identities == 5


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            "train --recipe nope --data D --out R",
            "recipe must be one of paper, scratch, strong, demo, smoke",
        ),
        ("train --recipe smoke --data missing --out R", "missing"),
        ("evaluate --checkpoint missing.safetensors --data D", "expected a checkpoint"),
        ("synth", "pass --out DIR"),
        ("train --data D --out R --model.image-height 250", "multiple of 32"),
        ("train --data D --out R --model.no-global-branch", "cca=True needs"),
    ],
)
def test_errors_are_clear_and_without_a_traceback(
    words: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(words.split())
    except SystemExit as stop:  # the option parser's own way out
        code = stop.code
    said = capsys.readouterr()
    assert code == 2
    assert text in " ".join((said.err + said.out).replace("│", " ").split())
    assert "Traceback" not in said.err


def test_a_warning_is_a_sentence_and_names_no_line_of_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def show(self: Train) -> None:
        print(warnings.formatwarning("left out 3 images", UserWarning, "code.py", 7), end="")

    monkeypatch.setattr(Train, "run", show)
    usual = warnings.formatwarning
    assert main(["train", "--data", "D", "--out", "R"]) == 0
    assert capsys.readouterr().out == "ccan: left out 3 images\n"
    assert warnings.formatwarning is usual
