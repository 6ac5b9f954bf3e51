import itertools
from pathlib import Path

import pytest
from ghostsr_ext.errors import InputError
from ghostsr_ext.fingerprints import file_digest
from ghostsr_ext.inference import UpscaleJob, plan_jobs, shard
from ghostsr_ext.inference.record import Record


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name in (
        "photo.png",
        "film.mp4",
        "shots/b.JPG",
        "shots/a.gif",
        "shots/notes.txt",
        "shots/.hidden.png",
        "shots/deep/c.tif",
        "shots/.cache/d.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(*sources, **options):
    jobs = plan_jobs(sources, scale=2, **options)
    return [(str(job.source), str(job.target)) for job in jobs]


def test_a_result_lies_beside_its_picture(here):
    assert planned("photo.png") == [("photo.png", "photo_x2.png")]
    assert planned("shots/b.JPG") == [("shots/b.JPG", "shots/b_x2.JPG")]


def test_a_result_lies_in_the_output_folder(here):
    assert planned("shots/b.JPG", output=Path("big")) == [("shots/b.JPG", "big/b_x2.JPG")]


def test_a_folder_is_searched_and_keeps_its_shape(here):
    assert planned("shots", output=Path("big")) == [
        ("shots/a.gif", "big/a_x2.png"),
        ("shots/b.JPG", "big/b_x2.JPG"),
        ("shots/deep/c.tif", "big/deep/c_x2.tif"),
    ]


def test_a_folders_results_lie_in_a_folder_beside_it(here):
    targets = {target for _, target in planned("shots")}

    assert targets == {
        str(here / "shots_x2" / name) for name in ("a_x2.png", "b_x2.JPG", "deep/c_x2.tif")
    }


def test_results_inside_the_folder_are_not_enlarged_again(here):
    before = planned("shots", output=Path("shots/big"))
    for _, target in before:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_bytes(b"")

    assert planned("shots", output=Path("shots/big")) == before


@pytest.mark.parametrize(
    ("pattern", "sources"),
    [
        ("*.p?g", ["photo.png"]),
        ("**/*.tif", ["shots/deep/c.tif"]),
        ("shots/*", ["shots/a.gif", "shots/b.JPG"]),
        ("*.mp4", ["film.mp4"]),
    ],
)
def test_patterns_are_resolved(here, pattern, sources):
    assert [source for source, _ in planned(pattern)] == sources


def test_a_file_with_pattern_characters_in_its_name_is_that_file(here):
    (here / "a[1].png").write_bytes(b"")

    assert planned("a[1].png") == [("a[1].png", "a[1]_x2.png")]


def test_a_file_that_is_named_twice_is_done_once(here):
    assert len(planned("photo.png", "*.png", str(here / "photo.png"))) == 1


def test_the_format_can_be_chosen(here):
    assert planned("photo.png", suffix=".webp") == [("photo.png", "photo_x2.webp")]
    assert planned("film.mp4", suffix=".webp") == [("film.mp4", "film_x2.mp4")]


def test_only_videos_are_videos(here):
    film, photo = plan_jobs(["film.mp4", "photo.png"], scale=2)

    assert film.is_video
    assert not photo.is_video


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        (["gone.png"], {}, "gone.png: does not exist"),
        (["*.bmp"], {}, r"\*\.bmp: matches no picture"),
        (["shots/.cache/empty"], {}, "empty: has no pictures"),
        (["photo.png", "shots/b.JPG"], {"output": Path("a.png")}, "a.png: names a file.*2 files"),
        (["shots"], {"output": Path("a.png")}, "a.png: names a file.*the pictures of shots"),
        (["photo.png"], {"output": Path("a.gif")}, "a.gif: suffix must be one of .bmp"),
        (["photo.png"], {"output": Path("a.mp4")}, "a.mp4: suffix must be one of .bmp"),
        (["film.mp4"], {"output": Path("a.png")}, "a.png: suffix must be one of .avi"),
        (["photo.png"], {"output": Path("a.png"), "suffix": ".jpg"}, "not of the format .jpg"),
        (["photo.png"], {"suffix": ".gif"}, "format .gif: must be one of .bmp"),
    ],
)
def test_what_cannot_be_planned_is_refused(here, sources, options, message):
    (here / "shots/.cache/empty").mkdir()

    with pytest.raises(InputError, match=message):
        plan_jobs(sources, scale=2, **options)


def test_shards_share_the_work():
    jobs = [UpscaleJob(Path(f"{i}.png"), Path(f"{i}_x2.png")) for i in range(10)]

    parts = [shard(jobs, i, 3) for i in (1, 2, 3)]

    assert sorted(itertools.chain(*parts), key=jobs.index) == jobs
    assert [len(part) for part in parts] == [4, 3, 3]


@pytest.mark.parametrize(("index", "count"), [(0, 2), (3, 2), (1, 0)])
def test_a_shard_that_is_none_is_refused(index, count):
    with pytest.raises(InputError, match=f"shard {index}/{count}"):
        shard([], index, count)


@pytest.mark.parametrize(
    ("source", "output"), [("photo.png", "big.jpg"), ("film.mp4", "a/b.mkv"), ("*.p?g", "b.TIF")]
)
def test_a_single_result_can_be_named(here, source, output):
    ((_, target),) = planned(source, output=Path(output))

    assert target == output


def test_a_folder_is_one_whatever_its_name(here):
    (here / "big.png").mkdir()

    assert planned("photo.png", output=Path("big.png")) == [("photo.png", "big.png/photo_x2.png")]
    assert planned("photo.png", output=Path("v1.5")) == [("photo.png", "v1.5/photo_x2.png")]


def test_files_whose_results_would_have_one_name_are_refused_and_no_others(here):
    for name in ("shots/a.png", "shots/z.png", "shots/z.jpg"):
        (here / name).write_bytes(b"")

    jobs = plan_jobs(["shots"], scale=2, output=Path("big"), suffix=".png")

    refused = {job.source.name: job.refusal for job in jobs if job.refusal is not None}
    assert set(refused) == {"a.gif", "a.png", "z.png", "z.jpg"}
    assert "shots/a.gif and shots/a.png would both be written to big/a_x2.png" in refused["a.gif"]
    assert {job.source.name for job in jobs} - set(refused) == {"b.JPG", "c.tif"}


def result(path, source):
    record = Record({"model": "0" * 16, "scale": "2", "source": file_digest(source)})
    path.write_bytes(f"junk{record}".encode())
    return path


def test_results_are_no_sources(here):
    (here / "photo.png").write_bytes(b"a picture")
    result(here / "photo_x2.png", here / "photo.png")
    result(here / "shots" / "older.png", here / "photo.png")

    assert [source for source, _ in planned("*.png")] == ["photo.png"]
    assert "shots/older.png" not in [source for source, _ in planned("shots")]
    # As a shell resolves a pattern.
    assert [source for source, _ in planned("photo.png", "photo_x2.png")] == ["photo.png"]


def test_a_result_that_is_named_itself_is_enlarged(here):
    (here / "photo.png").write_bytes(b"a picture")
    result(here / "photo_x2.png", here / "photo.png")

    assert planned("photo_x2.png") == [("photo_x2.png", "photo_x2_x2.png")]
    assert len(planned("photo_x2.png", "shots/b.JPG")) == 2
