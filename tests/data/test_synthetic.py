"""The synthetic world: same bytes again, Market's names, honest maps and facts, people who pose the problem."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccan.data.synthetic import (
    Region,
    WorldConfig,
    citizen,
    contact_sheet,
    load_label_map,
    write_world,
)
from ccan.data.synthetic import workers as workers_module
from ccan.data.synthetic import write as write_module
from ccan.data.synthetic.body import Figure, Pose
from ccan.data.synthetic.camera import station
from ccan.data.synthetic.people import Person, draw_person
from ccan.data.synthetic.render import Atlas, Canvas, Light, Solid, View
from ccan.data.synthetic.scene import detector_box, shot_of, take_shot
from ccan.data.synthetic.wardrobe import atlas_of
from ccan.errors import ConfigError, DatasetError

SMALL = WorldConfig(
    identities=7, cameras=3, images_per_camera=3, seed=5, height=96, width=48, occlusion=0.5
)
NAME = re.compile(r"^(-1|\d{4})_c([1-3])s\d+_\d{6}_\d{2}\.jpg$")
BRIGHT = Light((0.0, 0.0, 1.0), 1.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "world"
    return write_world(SMALL, out, workers=1, progress=False)


@pytest.fixture(scope="module")
def facts(world: Path) -> dict[str, dict]:
    return json.loads((world / "attributes.json").read_text())


def images(world: Path, folder: str) -> list[Path]:
    return sorted((world / folder).glob("*.jpg"))


def bytes_of(world: Path) -> dict[str, bytes]:
    return {str(p.relative_to(world)): p.read_bytes() for p in world.rglob("*") if p.is_file()}


def test_the_same_seed_gives_the_same_bytes_with_one_and_two_workers(tmp_path, world):
    two = write_world(SMALL, tmp_path / "two", workers=2, progress=False)
    assert bytes_of(two) == bytes_of(world)


def test_another_seed_gives_other_people(tmp_path):
    other = dataclasses.replace(SMALL, seed=6)
    assert citizen(SMALL, 1).person != citizen(other, 1).person
    split = write_world(other, tmp_path / "world", workers=1, progress=False, splits=("query",))
    assert {p.name for p in split.iterdir()} == {
        *("query", "labels", "attributes.json", "world.json"),
    }


def test_names_and_counts_are_those_of_market_1501(world):
    counts = {"bounding_box_train": 3 * 9, "query": 4 * 3, "gt_bbox": 4 * 9}
    counts["bounding_box_test"] = 4 * 6 + SMALL.distractor_images + SMALL.junk_images
    for folder, count in counts.items():
        files = images(world, folder)
        assert len(files) == count
        assert all(NAME.match(path.name) for path in files), folder
    gallery = [path.name.split("_")[0] for path in images(world, "bounding_box_test")]
    assert gallery.count("0000") == SMALL.distractor_images == 7
    assert gallery.count("-1") == SMALL.junk_images == 7
    with Image.open(images(world, "query")[0]) as image:
        assert image.size == (48, 96)


def test_splits_share_no_identity_and_each_query_is_one_of_its_camera(world):
    names = {folder: [p.name for p in images(world, folder)] for folder in ("query", "gt_bbox")}
    train = {p.name[:4] for p in images(world, "bounding_box_train")}
    test = {p.name[:4] for p in images(world, "bounding_box_test")} - {"0000", "-1_c"}
    assert train == {"0002", "0004", "0006"}
    assert test == {"0001", "0003", "0005", "0007"} == {name[:4] for name in names["gt_bbox"]}
    views = [NAME.match(name) for name in names["query"]]
    assert len({(m[1], m[2]) for m in views if m}) == len(views) == 12


def test_every_image_has_a_label_map_and_every_region_occurs(world):
    seen: set[int] = set()
    for path in world.glob("*/*.jpg"):
        labels = load_label_map(path)
        assert labels.shape == (96, 48) and labels.dtype == np.uint8
        seen |= set(np.unique(labels).tolist())
    assert seen == {int(region) for region in Region}


def test_body_parts_stand_in_order_from_head_to_foot(world):
    order = [Region.HEAD_SHOULDER, Region.UPPER_BODY, Region.THIGHS, Region.CRUS_FOOT]
    checked = 0
    for path in images(world, "gt_bbox"):
        rows, _ = np.indices((96, 48))
        labels = load_label_map(path)
        if all(np.count_nonzero(labels == region) > 40 for region in order):
            middles = [rows[labels == region].mean() for region in order]
            assert middles == sorted(middles), path.name
            checked += 1
    assert checked > 15


def test_attributes_cover_all_images_and_agree_with_the_maps(world, facts):
    names = {f"{p.parent.name}/{p.name}" for p in world.glob("*/*.jpg")}
    assert set(facts["images"]) == names
    assert set(facts["identities"]) == {f"{i:04d}" for i in range(1, 8)}
    occluded = 0
    for name, known in facts["images"].items():
        labels = load_label_map(world / name)
        assert known["occluder_share"] == pytest.approx(np.mean(labels == 1), abs=1e-4)
        assert known["person_share"] == pytest.approx(np.mean(labels > 1), abs=1e-4)
        assert known["visible"] <= 1 - known["occlusion"] + 1e-3
        assert (known["occluder"] == "none") <= (known["occlusion"] == 0)
        match = NAME.match(Path(name).name)
        assert match and (known["identity"], known["camera"]) == (int(match[1]), int(match[2]))
        occluded += known["occluder"] != "none"
    assert 0.3 < occluded / len(names) < 0.7


def test_hand_drawn_boxes_are_aligned_and_detector_boxes_are_not(facts):
    boxes = {True: [], False: []}
    for name, known in facts["images"].items():
        if known["identity"] > 0:
            boxes[name.startswith("gt_bbox")].append((*known["box_shift"], known["box_scale"]))
    assert np.array(boxes[True]) == pytest.approx(np.tile([0, 0, 1], (36, 1)))
    assert (np.array(boxes[False]).std(axis=0) > [0.02, 0.01, 0.02]).all()


def test_lookalikes_share_all_attributes_but_one():
    config = WorldConfig(identities=60, lookalikes=1.0)
    groups: dict[str, list] = {}
    for identity in range(1, 61):
        who = citizen(config, identity)
        assert who.group is not None
        groups.setdefault(who.group, []).append((identity, who))
    assert len(groups) == 20
    for members in groups.values():
        assert len({identity % 2 for identity, _ in members}) == 1, "a group lives in one half"
        (_, first), (_, second), (_, third) = members
        for a, b in ((first, second), (first, third), (second, third)):
            left, right = a.person.to_dict(), b.person.to_dict()
            assert [key for key in left if left[key] != right[key]] == [a.detail]
    assert all(citizen(WorldConfig(lookalikes=0.0), i).group is None for i in range(1, 60))


def person_with(**changes: object) -> Person:
    plain = {"held": "none", "bag": "none", "scarf": "none", "hat": "none", "top_pattern": "plain"}
    return dataclasses.replace(draw_person(np.random.default_rng(3)), **{**plain, **changes})


def seen_from(person: Person, degrees: float) -> Canvas:
    canvas = Canvas(200, 140)
    view = View(np.radians(degrees), 0.1, 180 / person.height * 0.98, (70, 190))
    canvas.draw(Figure(person, Pose(0.4, 0.3)).solids, atlas_of(person), view, BRIGHT)
    return canvas


def picture(canvas: Canvas) -> np.ndarray:
    ground = np.full((*canvas.texel.shape, 3), 128, np.float32)
    canvas.paint_over(ground)
    return ground


def test_the_logo_is_seen_from_the_front_only():
    shirt = {"top": "t-shirt", "top_colour": "white", "top_colour2": "blue"}
    with_logo, without = person_with(top_pattern="logo", **shirt), person_with(**shirt)
    changed = {}
    for degrees in (0, 180):
        images = [picture(seen_from(person, degrees)) for person in (with_logo, without)]
        distance = np.abs(images[0] - images[1]).max(axis=-1)
        changed[degrees] = np.count_nonzero(distance > 60)
    assert changed[0] > 50 and changed[180] == 0


def test_the_backpack_is_seen_from_behind_and_its_straps_from_the_front():
    person = person_with(bag="backpack")
    carried = {
        degrees: np.count_nonzero(seen_from(person, degrees).labels() == Region.CARRIED)
        for degrees in (0, 90, 180)
    }
    assert carried[180] > 4 * carried[0] > 0
    assert carried[180] > carried[90] > carried[0]


def test_the_face_is_skin_and_the_back_of_the_head_hair():
    person = person_with(hair="short", hair_colour="black", skin="fair", beard=False, glasses=False)
    front, back = (picture(seen_from(person, d))[16:28, 66:74].mean() for d in (0, 180))
    assert front > 150 > 70 > back


def test_a_ball_is_drawn_where_geometry_says():
    atlas = Atlas(np.full((1, 3), 200, np.float32), np.full(1, 7, np.uint8), {"skin": (0, 1, 1)})
    ball = Solid((0.1, 0.5, 0.0), (0.1, 0.5, 0.0), (0.2,), (0.2,), "skin")
    canvas = Canvas(101, 101)
    view = View(azimuth=0.0, elevation=0.0, scale=100.0, origin=(40.5, 100.5), distance=1e6)
    canvas.draw([ball], atlas, view, BRIGHT)
    rows, columns = np.nonzero(canvas.labels() == 7)
    assert (rows.mean(), columns.mean()) == pytest.approx((50, 50), abs=0.1)
    assert len(rows) == pytest.approx(np.pi * 20**2, rel=0.02)
    assert canvas.depth.max() == pytest.approx(20, rel=0.01)


def test_a_flat_solid_has_the_silhouette_of_its_ellipse():
    atlas = Atlas(np.full((1, 3), 200, np.float32), np.full(1, 5, np.uint8), {"cloth": (0, 1, 1)})
    slab = Solid((0, 0.9, 0), (0, 0.1, 0), (0.3,), (0.1,), "cloth", cap=0.0)
    for degrees in (0.0, 35.0, 90.0):
        canvas = Canvas(100, 100)
        view = View(np.radians(degrees), 0.0, 100.0, (50.0, 100.0), distance=1e6)
        canvas.draw([slab], atlas, view, BRIGHT)
        a, b = 30 * np.cos(np.radians(degrees)), 10 * np.sin(np.radians(degrees))
        width = np.count_nonzero(canvas.labels()[50])
        assert width == pytest.approx(2 * np.hypot(a, b), abs=1.1)
        assert canvas.depth[50].max() == pytest.approx(
            np.hypot(30 * np.sin(np.radians(degrees)), 10 * np.cos(np.radians(degrees))), abs=0.5
        )


def test_texture_turns_with_the_body():
    colours = np.arange(36, dtype=np.float32)[:, None].repeat(3, axis=1)
    atlas = Atlas(colours, np.full(36, 5, np.uint8), {"ring": (0, 1, 36)})
    column = Solid((0, 0.9, 0), (0, 0.1, 0), (0.3,), (0.3,), "ring", cap=0.0)
    for degrees in (5.0, 95.0, 275.0):
        canvas = Canvas(100, 100)
        view = View(np.radians(degrees), 0.0, 100.0, (50.5, 100.0), distance=1e6)
        canvas.draw([column], atlas, view, BRIGHT)
        middle, right = picture(canvas)[50, (50, 75), 0]
        assert middle == degrees // 10, "the middle shows the side that faces the camera"
        assert right == (degrees + np.degrees(np.arcsin(25 / 30))) % 360 // 10


def test_an_occluder_hides_what_the_facts_say():
    config = dataclasses.replace(SMALL, occlusion=1.0)
    camera, background = station(config, 1)
    person = citizen(config, 1).person
    shots = [
        take_shot(config, camera, background, person, np.random.default_rng(i)) for i in range(12)
    ]
    assert len({shot.facts["occluder"] for shot in shots}) > 2
    for shot in shots:
        hidden = np.mean(shot.labels[shot.whole] == Region.OCCLUDER)
        assert shot.facts["occlusion"] == pytest.approx(hidden, abs=1e-4)
    assert max(shot.facts["occlusion"] for shot in shots) > 0.1


def test_without_jitter_boxes_are_the_aligned_ones():
    still = dataclasses.replace(SMALL, jitter=0.0)
    shot, rng = shot_of(still, 1, 1, 0)
    assert detector_box(shot, still, rng) == pytest.approx(shot.aligned)


def test_a_complete_world_is_returned_untouched(world, monkeypatch):
    monkeypatch.setattr(workers_module, "render_unit", lambda *_: pytest.fail("rendered anew"))
    before = (world / "world.json").stat().st_mtime_ns
    assert write_world(SMALL, world, progress=False) == world
    assert write_world(SMALL, world, progress=False, splits=("query",)) == world
    assert (world / "world.json").stat().st_mtime_ns == before


def test_another_world_or_foreign_files_are_not_overwritten(world, tmp_path):
    with pytest.raises(DatasetError, match=r"a world of other settings.*delete this one"):
        write_world(dataclasses.replace(SMALL, seed=9), world, progress=False)
    (tmp_path / "thesis.txt").write_text("keep")
    with pytest.raises(DatasetError, match=r"not empty.*no world\.json.*choose another folder"):
        write_world(SMALL, tmp_path, progress=False)
    assert (tmp_path / "thesis.txt").read_text() == "keep"


def test_a_world_of_fewer_splits_is_not_the_whole_world(tmp_path):
    config = dataclasses.replace(SMALL, identities=2)
    write_world(config, tmp_path / "w", workers=1, progress=False, splits=("query",))
    with pytest.raises(DatasetError, match=r"found splits \['query'\]"):
        write_world(config, tmp_path / "w", progress=False)


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    calls = iter(range(100))

    def interrupted(*args):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    real = workers_module.render_unit
    monkeypatch.setattr(workers_module, "render_unit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_world(SMALL, tmp_path / "w", workers=1, progress=False)
    assert next(calls) == 3, "it had begun"
    assert list(tmp_path.iterdir()) == []


def test_a_failing_child_is_an_error_that_names_its_cause(tmp_path, monkeypatch):
    monkeypatch.setattr(write_module, "units_of", lambda *_: [("person", "nobody")] * 8)
    with pytest.raises(DatasetError, match="rendering the world failed: TypeError"):
        write_world(SMALL, tmp_path / "w", workers=2, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_label_maps_exist_for_synthetic_images_only(tmp_path):
    with pytest.raises(DatasetError, match=r"has no label map, expected .*labels.*a\.png"):
        load_label_map(tmp_path / "query" / "a.jpg")


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("identities", 1, "identities must be at least 2, got 1"),
        ("images_per_camera", 1, "images_per_camera must be at least 2, got 1"),
        ("seed", -1, "seed must be at least 0, got -1"),
        ("junk", -3, "junk must be at least 0, got -3"),
        ("occlusion", 1.2, "occlusion must be a share between 0 and 1, got 1.2"),
        ("cast", float("nan"), "cast must be a strength between 0 and 3, got nan"),
    ],
)
def test_settings_without_meaning_are_errors(setting, value, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        WorldConfig(**{setting: value})


def test_unknown_splits_and_workers_are_errors(tmp_path):
    with pytest.raises(ConfigError, match=r"splits must be some of train, query.*\['test'\]"):
        write_world(SMALL, tmp_path / "w", splits=("test",))
    with pytest.raises(ConfigError, match="workers must be at least 1, got 0"):
        write_world(SMALL, tmp_path / "w", workers=0)


def test_settings_travel_as_json():
    assert WorldConfig.from_dict(json.loads(json.dumps(SMALL.to_dict()))) == SMALL


def test_the_contact_sheet_is_a_picture_of_the_world():
    sheet = contact_sheet(SMALL, rows=2, columns=6)
    pixels = np.asarray(sheet, np.float32)
    assert sheet.width == 6 * 83 + 3 and pixels.std() > 30
    with pytest.raises(
        ConfigError, match="cameras × images_per_camera = 9, got rows=2, columns=10"
    ):
        contact_sheet(SMALL, rows=2, columns=10)


def test_the_generator_needs_no_torch():
    code = "import ccan.data.synthetic, sys; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
