"""Benchmarks: they run, what they count is right by hand, and the page about them says what they measured."""

from __future__ import annotations

import importlib
import json
import mmap
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count, product
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch

from ccan.data import ReIDDataset, load_dataset
from ccan.data.records import Sample
from ccan.data.synthetic import WorldConfig, write_world
from ccan.training import load_model
from tests.system.commands import ROOT
from tests.training.people import tiny_recipe

BENCHMARKS = ROOT / "benchmarks"
Import = Callable[[str], Any]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Import:
    """Imports a module of the benchmarks' folder, as the scripts themselves do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def results(name: str) -> Any:
    """What a benchmark wrote into the repository."""
    return json.loads((BENCHMARKS / "results" / f"{name}.json").read_text())["result"]


def table_under(title: str) -> list[list[str]]:
    """The cells of the first table behind a bold question of the page, without its head."""
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    _, _, rest = page.partition(f"**{title}**")
    assert rest, f"the page no longer asks {title!r}"
    lines = rest[rest.index("\n|") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_page_says_how_hard_the_worlds_are() -> None:
    expected = [
        [
            f"{run['world']}, seed {run['seed']}",
            *(
                f"{100 * run[judge][figure]:.1f}"
                for judge in ("model", "histogram")
                for figure in ("mAP", "rank1")
            ),
        ]
        for run in results("world_difficulty")
    ]
    assert table_under("Is it a real problem?") == expected
    assert len(expected) == 4


def test_the_bundled_models_own_file_has_the_same_figures() -> None:
    file = load_file_of_the_model()
    for run in results("world_difficulty"):
        if run["world"] == "default":
            figures = file[f"seed {run['seed']}"]
            for name in ("mAP", "rank1", "mINP"):
                assert run["model"][name] == pytest.approx(figures[name], abs=5e-4)


def load_file_of_the_model() -> Any:
    text = (ROOT / "ccan" / "assets" / "demo" / "evaluation.json").read_text(encoding="utf-8")
    return json.loads(text)


def test_the_page_says_how_fast_a_world_is_made() -> None:
    speed = results("world_speed")["images_per_second"]["processor"]
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    words = f"**{speed['median']:.0f} images** ({speed['lowest']:.0f} to {speed['highest']:.0f})"
    assert words in page


def test_the_page_says_which_input_size_is_best() -> None:
    runs = results("input_size")["runs"]
    sizes = sorted({(run["image_height"], run["image_width"]) for run in runs})
    expected = []
    for height, width in sizes:
        same = [run for run in runs if run["image_height"] == height]
        expected.append(
            [
                f"{height}×{width}",
                f"{same[0]['epochs']}",
                ", ".join(f"{run['processor_seconds']:.0f}" for run in same),
                ", ".join(f"{100 * run['mAP']:.1f}" for run in same),
                ", ".join(f"{100 * run['rank1']:.1f}" for run in same),
            ]
        )
    assert table_under("How large should the bundled model's input be?") == expected


def test_the_page_says_how_fast_the_networks_are() -> None:
    expected = []
    for network, what in product(("demo", "paper"), ("training", "inference")):
        found = results(f"{what}_cpu")[network]
        plain, last, *more = found["ways"].values()
        own = [last, *more[:1]][-1]  # how `ccan` runs it
        expected.append(
            [
                f"{network}, {what}",
                f"{found['batch']}",
                f"{found['gflop_a_step'] / found['batch']:.2f}",
                f"{plain['images_per_second']:.1f}",
                f"{last['images_per_second']:.1f}",
                *([f"{one['images_per_second']:.1f}" for one in more] or ["", ""]),
                f"{own['speed_ratio']:.2f}",
                f"{100 * own['share_of_ceiling']:.0f} %",
                f"{own['peak_mib']:.0f}",
            ]
        )
    assert table_under("How fast are the networks?") == expected


def test_the_page_says_whether_training_waits_for_its_images() -> None:
    expected = [
        [
            network,
            name,
            f"{figures['images_per_second']:.1f}",
            f"{figures['speed_ratio']:.2f}",
            f"{100 * figures['waiting']:.1f} %",
        ]
        for network in ("demo", "paper")
        for name, figures in results("training_cpu")[network]["pipeline"].items()
    ]
    assert table_under("Does training wait for its images?") == expected


def test_spread_and_seconds_by_hand(script: Import) -> None:
    measuring = script("measuring")
    assert measuring.spread([5.0, 1.0, 2.0]) == {"median": 2.0, "lowest": 1.0, "highest": 5.0}
    calls: list[int] = []
    ticks = (value**2 for value in count())  # 0 1 4 9 16 …: calls take 1, 5, 9 …
    seconds = measuring.seconds_of(
        lambda: calls.append(1), repeats=3, warmup=2, clock=lambda: float(next(ticks))
    )
    assert seconds == [1.0, 5.0, 9.0]
    assert len(calls) == 5


def test_the_machine_is_named(script: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring = script("measuring")
    facts = measuring.machine()
    assert facts["torch"] == str(torch.__version__) and facts["cores"] >= 1
    assert json.loads(json.dumps(facts)) == facts
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU, {device}")
    named = measuring.machine("cuda:1")
    assert named["gpu"] == "a GPU, cuda:1" and "driver" in named


def test_results_are_written_as_a_whole(script: Import, tmp_path: Path) -> None:
    measuring = script("measuring")
    written = measuring.write_result("x", {"a": 1.5}, folder=tmp_path)
    assert json.loads((tmp_path / "x.json").read_text()) == written
    assert written["result"] == {"a": 1.5} and written["machine"]["threads"] >= 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_peak_memory_grows_by_what_is_held(script: Import) -> None:
    measuring = script("measuring")
    measuring.reset_peak_memory("cpu")
    before = measuring.peak_memory()
    held = mmap.mmap(-1, 256 * 2**20)  # from the system: what was freed before could be used again
    held.write(b"\1" * len(held))
    assert measuring.peak_memory() >= before + 200
    if sys.platform == "linux":
        held.close()
        measuring.reset_peak_memory("cpu")
        assert measuring.peak_memory() < before + 100


def test_arithmetic_is_counted_right(script: Import) -> None:
    networks = script("networks")
    layer, rows = torch.nn.Linear(7, 11, bias=False), torch.ones(5, 7)
    assert networks.gflop_of(lambda: layer(rows)) * 1e9 == 2 * 5 * 7 * 11


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_ways_are_compared_with_the_plain_one(script: Import, device: str) -> None:
    networks, training, inference = map(script, ("networks", "bench_training", "bench_inference"))
    setting = networks.Setting(tiny_recipe(), torch.device(device), batch=8, steps=3)
    found = networks.compare(setting, training.prepare_step)
    forward = networks.compare(setting, inference.prepare_forward, inference=True)
    # Backward is two products where forward is one, but for the first layer, which needs no gradient of its images.
    assert 2.5 < found["gflop_a_step"] / forward["gflop_a_step"] < 3
    names = {"cpu": 2, "cuda": 5}[device]
    assert len(found["ways"]) == names
    assert len(forward["ways"]) == {"cpu": 4, "cuda": 6}[device]
    assert next(iter(found["ways"])) == "float32, standard layout"
    plain = found["ways"]["float32, standard layout"]
    assert plain["speed_ratio"] == plain["memory_ratio"] == 1
    for way in found["ways"].values():
        times = way["ms_a_step"]
        assert 0 < times["lowest"] <= times["median"] <= times["highest"]
        assert way["images_per_second"] == pytest.approx(8000 / times["median"])
        ratio = plain["ms_a_step"]["median"] / times["median"]
        assert way["speed_ratio"] == pytest.approx(ratio)


def test_ways_do_what_their_names_say(script: Import) -> None:
    networks = script("networks")
    names = [way.name for way in networks.ways_on(torch.device("cuda"))]
    assert names == [
        "float32, standard layout",
        "float32, channels last",
        "bfloat16, channels last, compiled (default)",
        "bfloat16, channels last, compiled (reduce-overhead)",
        "bfloat16, channels last",
    ]
    on_cpu = [way.name for way in networks.ways_on(torch.device("cpu"), inference=True)]
    folded, exported = (
        "float32, channels last, folded",
        "float32, standard layout, exported to ONNX",
    )
    assert on_cpu == [*names[:2], folded, exported]
    setting = networks.Setting(tiny_recipe(), torch.device("cpu"), 8, 1)
    for way in networks.ways_on(torch.device("cpu"), inference=True):
        form = torch.channels_last if way.channels_last else torch.contiguous_format
        assert setting.images(way).is_contiguous(memory_format=form)
        network = setting.network(way)
        weight = network.get_parameter("i1.conv3.conv.weight")
        assert weight.is_contiguous(memory_format=form)
        assert way.folded != any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    assert set(networks.float32_means()) == {"convolutions", "matrix_products"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["training", "inference"])
def test_a_benchmark_from_the_command_line(
    name: str, script: Import, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = script(f"bench_{name}").main
    small = ["--model", "demo", "--device", "cpu", "--batch", "8", "--steps", "1"]
    main([*small, "--results", str(tmp_path)])
    written = json.loads((tmp_path / f"{name}_cpu.json").read_text())
    assert json.loads(capsys.readouterr().out) == written
    assert written["result"].keys() == {"demo"}
    with pytest.raises(SystemExit) as ended:
        main(["--device", "cuda:99", "--results", str(tmp_path / "none")])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "nothing was measured: device must be auto or one of cpu" in said
    with pytest.raises(SystemExit):
        main(["--batch", "9"])
    assert "--batch must be a multiple of 4" in capsys.readouterr().err


def test_the_loop_is_fed_in_three_ways(script: Import) -> None:
    networks, pipeline = script("networks"), script("pipeline")
    setting = networks.Setting(tiny_recipe(), torch.device("cpu"), batch=8, steps=3)
    found = pipeline.measure_pipeline(setting)["pipeline"]
    assert list(found) == [
        "decoded in the loop, standard layout",
        "decoded by a process, channels last",
        "pixels kept, channels last",
    ]
    first = found["decoded in the loop, standard layout"]["images_per_second"]
    for figures in found.values():
        assert 0 <= figures["waiting"] < 1 and figures["images_per_second"] > 0
        assert figures["speed_ratio"] == pytest.approx(figures["images_per_second"] / first)


@pytest.mark.slow
def test_the_ceiling_is_above_what_a_network_reaches(script: Import) -> None:
    networks, inference = script("networks"), script("bench_inference")
    setting = networks.Setting(tiny_recipe(), torch.device("cpu"), batch=8, steps=3)
    found = networks.compare(setting, inference.prepare_forward, inference=True)
    for way in found["ways"].values():
        ratio = way["gflop_per_second"] / found["ceiling_gflop_per_second"]["float32"]
        assert way["share_of_ceiling"] == pytest.approx(ratio)
        assert 0 < ratio < 1


@pytest.mark.slow
def test_scaling_is_measured_and_drawn(
    script: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = script("bench_scaling")
    monkeypatch.setattr(bench, "AXES", {"batch": (8, 16), "parts": (1, 2), "embedding_dim": (8,)})
    calls: list[tuple[object, ...]] = []

    def measured_here(axis: str, value: int, *_: object) -> dict[str, Any]:
        calls.append((axis, value))
        return {"axis": axis, "value": value, "mib": 1.0 * value, "ms_a_step": {"median": 2.0}}

    class Here:
        """A pool whose work is done in this process, by a stand-in."""

        def __enter__(self) -> Here:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def apply(self, _: object, arguments: tuple[Any, ...]) -> dict[str, Any]:
            return measured_here(*arguments)

    monkeypatch.setattr(bench.multiprocessing, "get_context", lambda _: bench)
    monkeypatch.setattr(bench, "Pool", lambda _: Here(), raising=False)
    bench.main(["--device", "cpu", "--results", str(tmp_path)])
    assert calls == [("batch", 8), ("batch", 16), ("parts", 1), ("parts", 2), ("embedding_dim", 8)]
    assert (tmp_path / "scaling_cpu.png").stat().st_size > 5000
    assert len(json.loads((tmp_path / "scaling_cpu.json").read_text())["result"]["points"]) == 5
    one = script("bench_scaling").point("parts", 2, "demo", "cpu", 1)
    assert one["ms_a_step"]["median"] > 0 and one["mib"] > 0


def people(identities: int, images: int = 18) -> ReIDDataset:
    """So many training identities with so many images each, none of them on disk."""
    train = tuple(
        Sample(Path(f"{identity:04d}_{shot}.jpg"), identity, 1 + shot % 6)
        for identity in range(2, 2 * identities + 1, 2)
        for shot in range(images)
    )
    return ReIDDataset("none", Path("none"), train, (), ())


def test_input_sizes_get_the_same_time(script: Import) -> None:
    bench = script("bench_input_size")
    costs = dict(zip(bench.SIZES, (0.007, 0.019, 0.043), strict=True))
    for seconds, identities in ((240, 120), (60, 120), (4000, 40)):
        chosen, epochs = bench.plan(costs, people(identities), seconds)
        images = bench.images_in_epoch(chosen)
        times = {size: epochs[size] * images * costs[size] for size in bench.SIZES}
        largest = times[bench.SIZES[-1]]
        assert epochs[bench.SIZES[-1]] >= bench.LEAST_EPOCHS
        for size in bench.SIZES:
            assert abs(times[size] - largest) <= 0.5 * images * costs[size] + 1e-9
        if seconds != 60:  # too short for the sixteen people of one batch
            assert largest == pytest.approx(seconds, rel=0.15)
    assert len(chosen.train_identities) == 40, "there are no more, so there are more epochs"
    assert epochs[bench.SIZES[-1]] > 100


def test_an_epoch_of_identity_balanced_batches_by_hand(script: Import) -> None:
    """17 people with 9 images: two groups of 4 each are 34, two batches of 16 people; the rest is dropped."""
    assert script("bench_input_size").images_in_epoch(people(17, images=9)) == 2 * 16 * 4


def test_the_schedule_is_in_proportion(script: Import) -> None:
    bench = script("bench_input_size")
    whole, short = bench.sized((128, 64)), bench.sized((256, 128), epochs=6, seed=3)
    recipe = importlib.import_module("ccan.experiments.recipes").demo()
    assert replace(whole, train=replace(whole.train, device="auto")) == recipe
    assert (short.data.erasing_from_epoch, short.optim.warmup_epochs) == (2, 1)
    assert (short.train.epochs, short.train.seed) == (6, 3)
    assert (short.model.image_height, short.model.image_width) == (256, 128)


@pytest.mark.slow
def test_input_sizes_are_measured(
    script: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = script("bench_input_size")
    monkeypatch.setattr(bench, "SIZES", ((64, 32), (64, 64)))
    world = WorldConfig(identities=32, cameras=2, images_per_camera=4, height=64, width=32)
    folder = write_world(world, tmp_path / "w", workers=1, progress=False)
    dataset = load_dataset("synthetic", folder)
    report = bench.measure(world, dataset, dataset, 0.02, [5], tmp_path)
    assert json.loads((tmp_path / "input_size.json").read_text()) == report
    assert report["result"]["training_world"] == world.to_dict()
    runs = report["result"]["runs"]
    assert [(run["image_height"], run["image_width"]) for run in runs] == [(64, 32), (64, 64)]
    assert runs[0]["epochs"] >= runs[1]["epochs"] >= 4
    assert all(0 < run["mAP"] < 1 and run["processor_seconds"] > 0 for run in runs)


@pytest.mark.slow
def test_the_difficulty_of_a_small_world(script: Import) -> None:
    bench = script("bench_world")
    model, _ = load_model("demo")
    config = WorldConfig(identities=12, cameras=3, images_per_camera=2, seed=4)
    judged = bench.judge(config, model)
    assert judged["model"]["mAP"] > judged["histogram"]["mAP"] > 0.1
    assert judged["model"]["conventions"]["distance"] == "euclidean"
    assert judged["histogram"]["conventions"]["distance"] == "cosine"
    made = (ROOT / "Makefile").read_text(encoding="utf-8")
    harder = bench.WORLDS["harder"]
    strength = f"{harder.lookalikes:g} --occlusion {harder.occlusion:g} --jitter {harder.jitter:g}"
    assert f"--lookalikes {strength} " in made


def test_the_page_says_how_long_a_person_waits() -> None:
    worlds = [results(name) for name in ("app", "app_large")]
    rows = []
    for key in (
        *("first_page_overview_seconds", "first_page_rank_seconds", "next_query_milliseconds"),
        *("random_query_milliseconds", "slider_milliseconds", "attention_cached_milliseconds"),
        *("attention_cold_milliseconds", "parts_cached_milliseconds", "parts_cold_milliseconds"),
    ):
        unit, digits = ("s", 1) if key.endswith("_seconds") else ("ms", 0)
        rows.append(
            [
                f"{one[key]['median']:.{digits}f} {unit} "
                f"({one[key]['lowest']:.{digits}f} to {one[key]['highest']:.{digits}f})"
                for one in worlds
            ]
        )
    assert [cells[1:] for cells in table_under("How long does a person wait?")] == rows
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert f"from the cache takes {worlds[1]['open_seconds']['median']:.1f} s" in page
    loads = [one["load"] for one in worlds]
    within = " and ".join(f"{load['p95_milliseconds'] / 1000:.1f} s" for load in loads)
    errors = " and ".join(str(load["errors"]) for load in loads)
    assert f"{errors} errors, 95 % answered within {within}" in page
    for load in loads:
        memory = load["memory_MiB_every_250_requests"]
        assert f"{memory[1]:.0f} MiB after 250 requests, {memory[-1]:.0f} after 2,000" in page


def test_the_page_says_what_maps_cost() -> None:
    found = results("explain_cpu")
    expected = [
        [
            name,
            "{median:.0f} ({lowest:.0f} to {highest:.0f})".format(**one["milliseconds"]),
            f"{one['forwards']:.1f}",
        ]
        for name, one in found.items()
        if "milliseconds" in one
    ]
    assert table_under("What does a map cost?") == expected
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    seconds = found["diagnosis, 500 × 2000"]["seconds"]
    assert "takes {median:.2f} s ({lowest:.2f} to {highest:.2f})".format(**seconds) in page


@pytest.mark.slow
def test_explanations_are_timed(
    script: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = script("bench_explain")
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    monkeypatch.setattr(bench, "QUERIES", 30)
    monkeypatch.setattr(bench, "GALLERY", 600)
    bench.main(["--threads", "1", "--repeats", "1"])
    found = json.loads((tmp_path / "explain_cpu.json").read_text())["result"]
    assert found["one forward"]["forwards"] == 1
    assert all(one.get("forwards", 1) > 0 for one in found.values())


def test_the_page_says_how_large_galleries_are_searched() -> None:
    expected = []
    for row in results("search_cpu")["rows"]:
        cells = [f"{row['images']:,}", row["case"]]
        if "query_ms" in row:
            times = "{median:.1f} ({lowest:.1f} to {highest:.1f})".format(**row["query_ms"])
            cells += [f"{row['build_seconds']:.1f}", f"{row['disk_mib']:.0f}", times]
            cells += [f"{row['time_ratio']:.2f}", f"{row['recall_at_10']:.3f}"]
            cells += [f"{row['build_mib']:.0f}", f"{row['search_mib']:.0f}"]
        else:
            cells += [row["ended"], *[""] * 6]
        expected.append(cells)
    assert table_under("How large a gallery can be searched?") == expected
    assert {row["images"] for row in results("search_cpu")["rows"]} == {10**4, 10**5, 10**6}
    guide = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    told = {
        f"{one['query_ms']['median']:.0f} ms | {one['recall_at_10']:.2g}"
        for one in results("search_cpu")["rows"]
        if one["images"] == 10**6 and one["case"] != "IVF_FLAT"
    }
    assert not [words for words in told if words not in guide]


@pytest.mark.slow
def test_searches_are_timed(
    script: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = script("bench_search")
    monkeypatch.setattr(bench, "CASES", ("exact", "FLAT", "IVF_FLAT"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    threads = str(torch.get_num_threads())  # what torch is set to here stays as it is
    small = ["--small", "--threads", threads, "--results", str(tmp_path)]
    report = bench.main(small)
    assert json.loads((tmp_path / "search_cpu.json").read_text()) == report
    rows = report["result"]["rows"]
    assert [row["case"] for row in rows] == ["exact", "FLAT", "IVF_FLAT"]
    assert [row["images"] for row in rows] == [200] * 3
    exact, flat, approximate = rows
    assert exact["recall_at_10"] == flat["recall_at_10"] == 1
    assert 0.5 < approximate["recall_at_10"] <= 1 and 0.5 < approximate["recall_told"] <= 1
    assert exact["disk_mib"] > 200 * 512 * 4 / 2**20
    for row in rows:
        assert row["time_ratio"] == pytest.approx(
            row["query_ms"]["median"] / exact["query_ms"]["median"]
        )
        assert row["limit_ms"] == pytest.approx(
            1e3 * 200 * 512 * 4 / report["result"]["copy_bytes_a_second"]
        )
    bench.main([*small, "--limit", "0.0001"])
    ended = json.loads((tmp_path / "search_cpu.json").read_text())["result"]["rows"]
    assert {row["ended"] for row in ended} == {"build: not done after 0.0001 minutes"}
    with pytest.raises(SystemExit):
        bench.main(["--small"])


def test_the_page_says_how_sessions_feel() -> None:
    found = results("sessions")

    def said(one: dict[str, float], unit: str = "ms", digits: int = 0) -> str:
        span = f"({one['lowest']:.{digits}f} to {one['highest']:.{digits}f})"
        return f"{one['median']:.{digits}f} {unit} {span}"

    learn = found["learn_milliseconds"]
    rows = [
        said(found["map_first_paint_part_seconds"], "s", 1),
        said(found["map_first_paint_all_seconds"], "s", 1),
        said(found["lasso_small_milliseconds"]),
        said(found["lasso_large_milliseconds"]),
        said(found["pan_frame_milliseconds"]),
        said(found["colour_milliseconds"]),
        said(found["tag_on_disk_milliseconds"], "ms", 1),
        said(found["tag_by_key_milliseconds"]),
        *(said(learn[name]) for name in ("guess", "answer", "next")),
    ]
    assert [cells[1] for cells in table_under("How do sessions feel?")] == rows
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    people = found["four_people"]
    assert people["kept"] == people["tags"]
    assert f"{people['tags']} tags by four people at once: {people['kept']} are there" in page
    points = (found["lasso_small_points"], found["lasso_large_points"])
    assert all(f"{count:,} points" in page for count in points)


def test_the_page_says_how_long_a_notebook_runs() -> None:
    found = results("notebooks")
    lessons = [name for name in found["reader"]["seconds"] if "/" not in name]
    rows = [
        [
            f"[{name}](../notebooks/{name}.ipynb)",
            *(
                f"{found[profile]['seconds'][one]:.0f}"
                for one in (name, f"solutions/{name}")
                for profile in ("ci", "reader")
            ),
        ]
        for name in lessons
    ]
    together = [f"{found[profile]['together'] / 60:.0f} minutes" for profile in ("ci", "reader")]
    assert table_under("How long does a notebook run?") == rows
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert f"together {together[0]} in `ci` and {together[1]} in `reader`" in page


def test_the_course_page_says_how_long_the_computer_needs() -> None:
    seconds = results("notebooks")["reader"]["seconds"]
    course = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    told = {
        row[1]: row[4]
        for row in (line.split(" | ") for line in course.splitlines() if ".ipynb) |" in line)
    }
    assert len(told) == 12
    for link, words in told.items():
        name = link.partition("(")[2].removesuffix(".ipynb)")
        needed = seconds[name]
        assert words == (f"{needed / 60:.0f} min" if needed >= 90 else f"{needed:.0f} s"), name


@pytest.mark.slow
def test_notebooks_are_timed_and_the_readers_outputs_kept(
    script: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = script("bench_notebooks")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    parameters, work = (
        nbformat.v4.new_code_cell(source) for source in ('profile = "reader"', "print(profile)")
    )
    parameters.metadata["tags"] = ["parameters"]
    path = tmp_path / "00_small.ipynb"
    notebook = nbformat.v4.new_notebook(
        cells=[parameters, work],
        metadata={"kernelspec": kernel, "language_info": {"name": "python"}},
    )
    nbformat.write(notebook, path)
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    monkeypatch.setattr(bench, "notebooks", lambda only: [path])
    monkeypatch.setattr(bench, "open_world", lambda profile, train: None)
    monkeypatch.setenv("CCAN_CACHE", str(tmp_path / "cache"))  # so that the change is undone
    monkeypatch.setattr("sys.argv", ["bench", "--refresh", "--results", str(tmp_path)])
    bench.main()
    found = json.loads((tmp_path / "notebooks.json").read_text())["result"]
    assert [list(found[profile]["seconds"]) for profile in ("ci", "reader")] == [["00_small"]] * 2
    assert all(found[profile]["together"] > 0 for profile in found)
    kept = nbformat.read(path, as_version=4)
    assert [cell.source for cell in kept.cells] == [parameters.source, work.source]
    assert kept.cells[1].outputs[0].text == "reader\n"  # not what `ci` printed
    monkeypatch.setattr("sys.argv", ["bench", "--refresh", "--profiles", "ci"])
    with pytest.raises(SystemExit):
        bench.main()


def test_a_lesson_is_followed_by_its_solutions(script: Import) -> None:
    bench = script("bench_notebooks")
    names = [path.relative_to(ROOT / "notebooks").as_posix() for path in bench.notebooks(["3"])]
    lesson = "03_cross_correlated_attention.ipynb"
    assert names == [lesson, f"solutions/{lesson}"]
    assert len(bench.notebooks(())) == 24
