"""Problems that the lists show by themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ccan.data.check_lists import problems_of_copies, problems_of_lists
from ccan.data.records import Comparison, ReIDDataset, Sample, SkippedFile


def sample(name: str, identity: int, camera: int = 1) -> Sample:
    return Sample(Path(name), identity, camera)


GOOD = ReIDDataset(
    "tiny",
    Path("folder"),
    train=tuple(sample(f"t{n}.jpg", 100 + n // 5) for n in range(17 * 5)),
    query=(sample("q.jpg", 1),),
    gallery=(sample("g.jpg", 1, 2), sample("d.jpg", 0)),
)


def told(dataset: ReIDDataset) -> list[str]:
    return [f"{problem.severity}: {problem.what}" for problem in problems_of_lists(dataset)]


def test_nothing_is_wrong():
    assert told(GOOD) == []


def test_lists_that_are_missing():
    assert told(replace(GOOD, train=())) == ["note: there are no training images"]
    assert told(replace(GOOD, query=(), gallery=())) == ["note: there are no test images"]
    assert told(replace(GOOD, query=())) == [
        "error: there are no query images, but others to test on"
    ]
    assert told(replace(GOOD, gallery=())) == [
        "error: there are no gallery images, but others to test on"
    ]


def test_fewer_people_than_a_batch_takes():
    few = replace(GOOD, train=GOOD.train[:65])
    (problem,) = problems_of_lists(few)
    assert (problem.severity, problem.what) == (
        "error",
        "13 identities in train, but a batch takes 16 identities × 4 images",
    )
    assert problem.advice == "pass --data.identities-per-batch 13 or fewer"
    alone = replace(GOOD, train=GOOD.train[:5])
    assert "identities-per-batch 2 or fewer" in next(iter(problems_of_lists(alone))).advice


def test_fewer_images_than_a_batch_takes():
    train = tuple(sample(f"{n}.jpg", 100 + n // 3) for n in range(51))
    assert told(replace(GOOD, train=train)) == [
        "warning: 51 images in train, fewer than the 64 of a batch"
    ]


def test_people_with_one_image():
    lonely = (*GOOD.train, sample("x.jpg", 7), sample("y.jpg", 3))
    (problem,) = problems_of_lists(replace(GOOD, train=lonely))
    assert problem.what == "2 identities of train have one image only"
    assert problem.examples == ("identity 3", "identity 7")


def test_people_on_both_sides():
    """Distractors and junk are nobody in particular."""
    seen = tuple(sample(f"s{n}.jpg", identity) for n, identity in enumerate((1, 1, 0, 0, -1, -1)))
    (problem,) = problems_of_lists(replace(GOOD, train=(*GOOD.train, *seen)))
    assert problem.severity == "error"
    assert problem.what == "1 identities are in train and in the test"
    assert problem.examples == ("identity 1",)


def test_a_query_of_identity_0():
    (problem,) = problems_of_lists(replace(GOOD, query=(*GOOD.query, sample("z.jpg", 0))))
    assert problem.what == "1 queries have identity 0, which means a distractor"
    assert problem.examples == ("z.jpg",)


def test_images_that_were_left_out():
    skipped = tuple(
        SkippedFile(Path(f"{n}.jpg"), reason)
        for n, reason in enumerate(
            ["the name is not like 0002_c1s1_000451_03.jpg"] * 7
            + ["listed, but not there"] * 2
            + ["not an image"] * 3
        )
    )
    names, gone = problems_of_lists(replace(GOOD, skipped=skipped))
    assert names.what == "7 images were left out: the name is not like 0002_c1s1_000451_03.jpg"
    assert names.examples == ("0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    assert gone.what == "2 images were left out: listed, but not there"


def test_differences_from_the_official_counts():
    parts = (Comparison("query", 3, 2, 3, 2), Comparison("train", 3, 2, 3, 5))
    assert told(replace(GOOD, official=parts)) == [
        "warning: train: 3 images of 2 identities, officially 3 of 5"
    ]


def test_copies_across_splits_and_under_two_identities():
    dataset = replace(GOOD, gallery=(*GOOD.gallery, sample("other.jpg", 2)))
    paths = {s.path.name: s.path for s in (*dataset.train, *dataset.query, *dataset.gallery)}

    def problems(*groups: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
        found = problems_of_copies(dataset, [[paths[name] for name in group] for group in groups])
        return [(problem.what, problem.examples) for problem in found]

    assert problems() == problems(("t0.jpg", "t1.jpg")) == []
    across = "1 pictures are in several splits"
    torn = "1 pictures are there under two identities"
    assert problems(("q.jpg", "g.jpg")) == [(across, ("q.jpg = g.jpg",))]
    assert problems(("g.jpg", "other.jpg")) == [(torn, ("g.jpg = other.jpg",))]
    assert problems(("t0.jpg", "q.jpg"), ("t0.jpg", "t1.jpg")) == [
        (across, ("t0.jpg = q.jpg",)),
        (torn, ("t0.jpg = q.jpg",)),
    ]


def test_files_listed_twice_or_under_two_identities_are_found(tmp_path: Path) -> None:
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    dataset = ReIDDataset(
        "csv", tmp_path, (Sample(a, 1, 1),), (Sample(a, 2, 1),), (Sample(b, 2, 2), Sample(b, 2, 2))
    )
    found = {problem.what: problem for problem in problems_of_lists(dataset)}
    assert found["1 files are listed more than once in a split"].examples == (str(b),)
    torn = found["1 files are listed under two identities"]
    assert torn.severity == "error" and torn.examples == (str(a),)
