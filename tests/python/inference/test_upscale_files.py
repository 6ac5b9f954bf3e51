import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from enlarger import Enlarger
from ghostsr_ext.checkpoints import save_model
from ghostsr_ext.errors import InputError
from ghostsr_ext.fingerprints import file_digest
from ghostsr_ext.imaging import Picture, read_picture, write_picture
from ghostsr_ext.inference import Upscaler, plan_jobs, upscale_files
from ghostsr_ext.inference.record import read_record
from PIL import Image, ImageCms

RNG = np.random.default_rng(0)


@pytest.fixture
def upscaler():
    return Upscaler(Enlarger(), tile=32)


@pytest.fixture
def folder(tmp_path):
    shots = tmp_path / "shots"
    shots.mkdir()
    for i in range(5):
        Image.fromarray(noise(40 + i, 50)).save(shots / f"{i}.png")
    return shots


def noise(rows, columns, channels=3, dtype=np.uint8):
    return RNG.integers(0, np.iinfo(dtype).max + 1, (rows, columns, channels), dtype)


def repeated(image):
    return image.repeat(2, axis=0).repeat(2, axis=1)


def plan(folder):
    return plan_jobs([str(folder)], scale=2, output=folder.parent / "out")


def test_every_picture_is_written(folder, upscaler):
    outcome = upscale_files(upscaler, plan(folder))

    assert [job.source.name for job in outcome.written] == [f"{i}.png" for i in range(5)]
    assert (outcome.skipped, outcome.failed) == ([], [])
    for job in outcome.written:
        small = read_picture(job.source).pixels
        np.testing.assert_array_equal(read_picture(job.target).pixels, repeated(small))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bits_opacity_and_color_profile_survive(tmp_path, upscaler, suffix, dtype):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = Picture(
        noise(40, 30, dtype=dtype), noise(40, 30, dtype=dtype)[..., 0], icc_profile=profile
    )
    source = tmp_path / f"a{suffix}"
    write_picture(source, picture)

    upscale_files(upscaler, plan_jobs([str(source)], scale=2))

    result = read_picture(tmp_path / f"a_x2{suffix}")
    assert result.pixels.dtype == dtype
    np.testing.assert_array_equal(result.pixels, repeated(picture.pixels))
    assert result.alpha.shape == (80, 60)
    assert result.icc_profile == profile


def test_a_photograph_comes_out_upright(tmp_path, upscaler):
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth = np.linspace(0, 255, 40)[:, None, None] * np.ones((1, 30, 3))
    Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "a.jpg", exif=exif, quality=100)

    upscale_files(upscaler, plan_jobs([str(tmp_path / "a.jpg")], scale=2))

    with Image.open(tmp_path / "a_x2.jpg") as image:
        assert image.size == (80, 60)
        assert image.getexif().get(0x0112, 1) == 1
        first, last = np.asarray(image)[30, [2, -3], 0].astype(int)
    assert first > 200
    assert last < 50


def test_a_gray_picture_stays_gray(tmp_path, upscaler):
    Image.fromarray(noise(9, 9)[..., 0]).save(tmp_path / "a.png")

    upscale_files(upscaler, plan_jobs([str(tmp_path / "a.png")], scale=2))

    with Image.open(tmp_path / "a_x2.png") as image:
        assert image.mode == "L"


def test_finished_results_are_passed_over(folder, upscaler):
    jobs = plan(folder)
    upscale_files(upscaler, jobs[:2])
    before = [job.target.stat().st_mtime_ns for job in jobs[:2]]

    outcome = upscale_files(upscaler, jobs)

    assert outcome.skipped == jobs[:2]
    assert outcome.written == jobs[2:]
    assert [job.target.stat().st_mtime_ns for job in jobs[:2]] == before


def test_a_run_with_nothing_left_to_do_does_nothing(folder, upscaler):
    upscale_files(upscaler, plan(folder))

    outcome = upscale_files(upscaler, plan(folder))

    assert len(outcome.skipped) == 5
    assert (outcome.written, outcome.failed) == ([], [])


def test_finished_results_are_done_again_where_asked(folder, upscaler):
    jobs = plan(folder)
    jobs[0].target.parent.mkdir()
    jobs[0].target.write_bytes(b"old")

    outcome = upscale_files(upscaler, jobs, overwrite=True)

    assert outcome.written == jobs
    assert jobs[0].target.read_bytes()[:4] == b"\x89PNG"


def test_a_failure_stops_nothing_and_leaves_nothing(folder, upscaler):
    (folder / "1.png").write_bytes(b"no picture")
    Image.fromarray(noise(9, 9, 4)).save(folder / "3.png")
    jobs = plan_jobs([str(folder)], scale=2, output=folder.parent / "out", suffix=".jpg")

    outcome = upscale_files(upscaler, jobs)

    failed = {job.source.name: str(error) for job, error in outcome.failed}
    assert set(failed) == {"1.png", "3.png"}
    assert "is not a picture" in failed["1.png"]
    assert "JPEG has no transparency" in failed["3.png"]
    assert len(outcome.written) == 3
    names = {path.name for path in (folder.parent / "out").iterdir()}
    assert names == {"0_x2.jpg", "2_x2.jpg", "4_x2.jpg"}


def test_a_network_that_fails_halfway_through_a_picture_leaves_nothing(folder, monkeypatch):
    upscaler = Upscaler(Enlarger(), tile=16)
    calls = []

    def fails_later(image, scale):
        calls.append(image)
        if len(calls) == 9:
            raise RuntimeError("lost")
        return Enlarger.upscale(upscaler._network, image, scale)

    monkeypatch.setattr(upscaler._network, "upscale", fails_later)

    outcome = upscale_files(upscaler, plan(folder))

    ((job, error),) = outcome.failed
    assert (job.source.name, str(error)) == ("0.png", "lost")
    assert len(outcome.written) == 4
    assert len(list(job.target.parent.iterdir())) == 4


def test_an_output_folder_that_cannot_be_made_is_reported_for_each(folder, upscaler):
    (folder.parent / "out").write_bytes(b"a file")

    outcome = upscale_files(upscaler, plan(folder))

    assert len(outcome.failed) == 5
    assert all("cannot be written" in str(error) for _, error in outcome.failed)


def test_an_interrupt_ends_the_run_and_leaves_no_part(folder, upscaler):
    def interrupt(job, part):
        if job.source.name == "2.png":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_files(upscaler, plan(folder), progress=interrupt)

    names = {path.name for path in (folder.parent / "out").iterdir()}
    assert names == {"0_x2.png", "1_x2.png"}


def test_progress_is_told_for_each_piece(folder, upscaler):
    told = []

    upscale_files(upscaler, plan(folder)[:1], progress=lambda job, part: told.append(part))

    assert told == [32 / 40, 1.0]


def test_a_result_of_another_making_is_not_passed_over(tmp_path):
    Image.fromarray(noise(9, 9)).save(tmp_path / "a.jpg")
    jobs = plan_jobs([str(tmp_path / "a.jpg")], scale=2)
    usual = {"quality": 95}

    def run(network=None, *, options=usual, **settings):
        outcome = upscale_files(Upscaler(network or Enlarger(), **settings), jobs, **options)
        return [str(error) for _, error in outcome.failed] or len(outcome.skipped)

    assert run() == 0
    assert run() == 1
    assert run(tile=16) == 1
    for reason, changed in {
        "with another model": {"network": Enlarger(offset=1.0)},
        "in another number type": {"dtype": torch.float64},
        "with another --self-ensemble": {"self_ensemble": True},
        "in another quality": {"options": {"quality": 90}},
        "with another --metadata": {"options": {**usual, "keep_metadata": False}},
        "at another scale": {"scale": 3},
    }.items():
        (message,) = run(**changed)
        assert "a_x2.jpg: exists already, made " in message
        assert f"{reason}; pass overwrite" in message
    Image.fromarray(noise(9, 9)).save(tmp_path / "a.jpg")
    (message,) = run()
    assert "made of another picture or video" in message
    (tmp_path / "a_x2.jpg").write_bytes(b"mine")
    (message,) = run()
    assert "made not by ghostsr" in message
    assert (tmp_path / "a_x2.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_a_result_of_any_format_remembers_what_made_it(tmp_path, upscaler, suffix):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = Picture(noise(200, 300), icc_profile=profile)
    write_picture(tmp_path / f"a{suffix}", picture)
    jobs = plan_jobs([str(tmp_path)], scale=2, output=tmp_path / "out")

    upscale_files(upscaler, jobs)

    record = read_record(jobs[0].target)
    assert record.entries["source"] == file_digest(jobs[0].source)
    assert record.entries["scale"] == "2"
    assert len(upscale_files(upscaler, jobs).skipped) == 1
    assert ("quality" in record.entries) == (suffix in (".jpg", ".webp"))


def test_a_result_of_a_result_remembers_the_latter(tmp_path, upscaler):
    Image.fromarray(noise(9, 9)).save(tmp_path / "a.png", pnginfo=None)
    upscale_files(upscaler, plan_jobs([str(tmp_path / "a.png")], scale=2))
    upscale_files(upscaler, plan_jobs([str(tmp_path / "a_x2.png")], scale=2))

    record = read_record(tmp_path / "a_x2_x2.png")
    assert record.entries["source"] == file_digest(tmp_path / "a_x2.png")


def test_resolution_and_metadata_are_kept(tmp_path, upscaler):
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    Image.fromarray(noise(9, 9)).save(tmp_path / "a.png", dpi=(300, 300), exif=exif)

    upscale_files(upscaler, plan_jobs([str(tmp_path / "a.png")], scale=2))

    with Image.open(tmp_path / "a_x2.png") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert image.getexif()[0x010F] == "Camera"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_two_runs_on_one_folder_do_not_disturb_each_other(tmp_path, small_network):
    save_model(small_network, tmp_path / "network.safetensors")
    shots = tmp_path / "shots"
    shots.mkdir()
    for i in range(12):
        Image.fromarray(noise(60, 70)).save(shots / f"{i:02}.png")
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from ghostsr_ext.inference import Upscaler, plan_jobs, upscale_files
        network, shots, out = sys.argv[1:]
        jobs = plan_jobs([shots], scale=2, output=Path(out))
        outcome = upscale_files(Upscaler(network, tile=32), jobs)
        assert not outcome.failed
        """
    )
    out = tmp_path / "out"
    arguments = [sys.executable, "-c", program, tmp_path / "network.safetensors", shots, out]

    runs = [subprocess.Popen(arguments) for _ in range(2)]

    assert [run.wait() for run in runs] == [0, 0]
    assert sorted(path.name for path in out.iterdir()) == [f"{i:02}_x2.png" for i in range(12)]


def test_what_a_killed_run_has_left_is_removed(folder, upscaler):
    out = folder.parent / "out"
    out.mkdir()
    leftover = out / ".0_x2.a1b2c3d4.png"
    leftover.write_bytes(b"half")
    other = out / ".0_x2.mine.png"
    other.write_bytes(b"kept")

    upscale_files(upscaler, plan(folder))

    assert not leftover.exists()
    assert other.exists()


@pytest.mark.slow
def test_a_killed_run_is_finished_by_the_next_with_the_same_bytes(tmp_path, small_network):
    save_model(small_network, tmp_path / "network.safetensors")
    shots = tmp_path / "shots"
    shots.mkdir()
    for i in range(100):
        Image.fromarray(noise(60, 70)).save(shots / f"{i:03}.png")
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from ghostsr_ext.inference import Upscaler, plan_jobs, upscale_files
        network, shots, out = sys.argv[1:]
        jobs = plan_jobs([shots], scale=2, output=Path(out))
        upscale_files(Upscaler(network, tile=32), jobs)
        """
    )

    def start(out):
        arguments = [tmp_path / "network.safetensors", shots, out]
        return subprocess.Popen([sys.executable, "-c", program, *arguments])

    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    assert start(undisturbed).wait() == 0
    started = time.monotonic()
    run = start(disturbed)
    until = RNG.integers(5, 90)
    while run.poll() is None and len(list(disturbed.glob("*_x2.png"))) < until:
        assert time.monotonic() - started < 300
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert len(list(disturbed.glob("*_x2.png"))) < 100
    assert start(disturbed).wait() == 0

    names = sorted(path.name for path in undisturbed.iterdir())
    assert len(names) == 100
    assert sorted(path.name for path in disturbed.iterdir()) == names
    for name in names:
        assert (disturbed / name).read_bytes() == (undisturbed / name).read_bytes()


def test_a_wrong_quality_is_an_input_error_of_each_file(folder, upscaler):
    outcome = upscale_files(upscaler, plan(folder), quality=0)

    assert all(isinstance(error, InputError) for _, error in outcome.failed)
    assert len(outcome.failed) == 5
