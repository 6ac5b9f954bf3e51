import io
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import invoke
from ghostsr_cli.upscale import upscale_command
from ghostsr_ext.checkpoints import save_model
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import read_picture
from ghostsr_ext.inference import Upscaler, upscaler
from ghostsr_ext.models.edsr import EDSR
from hostile_pictures import hostile_pictures
from PIL import ExifTags, Image
from recorders import CpuRecorder

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    save_model(EDSR(scale=2, blocks=1, features=4), "net.safetensors")
    Path("shots").mkdir()
    for i in range(4):
        picture(20 + i, 30).save(f"shots/{i}.png")
    return tmp_path


def picture(rows, columns):
    return Image.fromarray(RNG.integers(0, 256, (rows, columns, 3), np.uint8))


def run(*arguments, stdin=None):
    if "--model" not in arguments:
        arguments = (*arguments, "--model", "net.safetensors")
    return invoke(upscale_command, *arguments, stdin=stdin)


def test_pictures_are_enlarged_and_named(folder):
    result = run("shots/0.png", "--output", "out")

    assert (result.exit_code, result.stdout) == (0, "out/0_x2.png\n")
    expected = Upscaler("net.safetensors")(read_picture("shots/0.png"))
    np.testing.assert_array_equal(read_picture("out/0_x2.png").pixels, expected.pixels)


def test_options_reach_the_upscaler(folder):
    run("shots/0.png", "--output", "out", "--self-ensemble", "--dtype", "float64", "--tile", "9")

    network = Upscaler("net.safetensors", self_ensemble=True, dtype=torch.float64)
    expected = network(read_picture("shots/0.png"))
    np.testing.assert_array_equal(read_picture("out/0_x2.png").pixels, expected.pixels)


def test_work_for_sizes_that_come_again_is_replayed(folder, monkeypatch):
    recorder = CpuRecorder()
    monkeypatch.setattr(upscaler, "device_recorder", lambda device: recorder)

    run("shots/0.png", "--output", "out", "--tile", "4")

    assert recorder.replays > 0


def test_a_second_run_passes_over_what_is_done(folder):
    run("shots/0.png", "shots/1.png", "--output", "out")

    result = run("shots", "--output", "out")

    assert result.exit_code == 0
    assert result.stdout.split() == ["out/2_x2.png", "out/3_x2.png"]
    assert result.stderr == "2 written, 2 there already, 0 failed\n"


def test_failures_are_told_at_the_end_and_in_the_status(folder):
    Path("shots/1.png").write_bytes(b"junk")

    result = run("shots", "--output", "out")

    assert result.exit_code == 1
    assert len(result.stdout.split()) == 3
    first, last = result.stderr.splitlines()
    assert first.startswith("ghostsr: error: shots/1.png: is not a picture")
    assert last == "3 written, 0 there already, 1 failed"


def test_standard_input_goes_to_standard_output(folder):
    result = run("-", "--format", "webp", stdin=Path("shots/0.png").read_bytes())

    with Image.open(io.BytesIO(result.stdout_bytes)) as image:
        assert (image.format, image.size) == ("WEBP", (60, 40))


def test_one_result_can_be_named(folder):
    result = run("shots/0.png", "-o", "big.webp")

    assert (result.exit_code, result.stdout) == (0, "big.webp\n")
    with Image.open("big.webp") as image:
        assert (image.format, image.size) == ("WEBP", (60, 40))


def test_options_are_called_as_in_real_esrgan(folder):
    result = run("-i", "shots", "-o", "out", "-s", "2", "--format", "jpg")

    assert result.exit_code == 0
    assert len(result.stdout.split()) == 4
    assert run("-i", "shots/0.png", "-i", "shots/1.png", "-o", "two").stdout.split() == [
        "two/0_x2.png",
        "two/1_x2.png",
    ]


def test_the_help_shows_what_is_given_and_how(folder):
    text = run("--help").stdout

    # Releases of typer put their own marks around what may be left out or repeated.
    assert re.search(r"Usage: .* \[OPTIONS\] \[?PICTURE\b", text)
    for option in ("--input", "-i", "--output", "-o", "--scale", "-s", "--metadata"):
        assert option in text


@pytest.mark.parametrize("kept", [True, False])
def test_metadata_is_kept_or_dropped(folder, kept):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    picture(20, 30).save("shots/0.jpg", exif=exif, dpi=(300, 300))

    run("shots/0.jpg", "-o", "big.jpg", *([] if kept else ["--metadata", "drop"]))

    with Image.open("big.jpg") as image:
        assert image.getexif().get(ExifTags.Base.Make) == ("Camera" if kept else None)
        assert image.info["dpi"] == (300, 300)


def test_another_network_does_not_pass_over_results(folder):
    save_model(EDSR(scale=2, blocks=1, features=8), "other.safetensors")
    run("shots", "-o", "out")
    before = Path("out/0_x2.png").read_bytes()

    result = run("shots", "-o", "out", "--model", "other.safetensors")

    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "0 written, 0 there already, 4 failed"
    assert "out/0_x2.png: exists already, made with another model; pass overwrite" in result.stderr
    assert Path("out/0_x2.png").read_bytes() == before
    assert run("shots", "-o", "out", "--model", "other.safetensors", "--overwrite").exit_code == 0
    assert Path("out/0_x2.png").read_bytes() != before


def test_results_are_not_enlarged_again(folder, monkeypatch):
    monkeypatch.chdir("shots")
    for _ in range(2):
        run("*.png", "--model", "../net.safetensors")
        run(".", "-o", ".", "--model", "../net.safetensors")

    assert sorted(path.name for path in Path().iterdir()) == sorted(
        name for i in range(4) for name in (f"{i}.png", f"{i}_x2.png")
    )


def test_two_files_that_would_become_one_are_refused_and_the_others_done(folder):
    picture(9, 9).save("shots/0.gif")

    result = run("shots", "-o", "out")

    assert result.exit_code == 1
    assert result.stdout.split() == ["out/1_x2.png", "out/2_x2.png", "out/3_x2.png"]
    assert result.stderr.count("would both be written to out/0_x2.png") == 2


def test_shards_do_all_the_work_together(folder):
    first = run("shots", "--output", "out", "--shard", "1/2").stdout.split()
    second = run("shots", "--output", "out", "--shard", "2/2").stdout.split()

    assert (first, second) == (
        ["out/0_x2.png", "out/2_x2.png"],
        ["out/1_x2.png", "out/3_x2.png"],
    )


def test_torchruns_ranks_are_shards(folder, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")

    result = run("shots", "--output", "out")

    assert result.stdout.split() == ["out/1_x2.png"]
    assert "part 2 of 4: 1 of 4 files" in result.stderr


def test_ranks_that_torchrun_did_not_set_do_not_count(folder, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("RANK", "7")
    monkeypatch.setenv("WORLD_SIZE", "8")

    result = run("shots", "--output", "out")

    assert len(result.stdout.split()) == 4
    assert "WORLD_SIZE is set, but torchrun did not start this process" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.png"], r"gone\.png: does not exist"),
        (["shots/0.png", "--scale", "3"], "scale: found 3; this network serves x2"),
        (["shots/0.png", "--tile", "0"], "--tile: found '0'"),
        (["shots/0.png", "--memory", "much"], "--memory much: must be a size"),
        (["shots/0.png", "--shard", "3/2"], "--shard 3/2: must be i/n"),
        (["shots/0.png", "--device", "toaster"], "--device: found 'toaster'"),
        (["-", "shots/0.png"], "PICTURE -: is given alone"),
        (["shots", "-o", "big.png"], "output big.png: names a file"),
        ([], "PICTURE: none is given"),
    ],
)
def test_wrong_arguments_are_one_clear_error(folder, arguments, message):
    with pytest.raises(InputError, match=message):
        run(*arguments)


def test_a_model_that_does_not_exist_is_named(folder):
    with pytest.raises(InputError, match=r"model gone\.safetensors: does not exist"):
        run("shots/0.png", "--model", "gone.safetensors")


def test_hostile_pictures_give_one_clean_error_each(folder):
    corpus = {f"{i}_{name}": content for i, (name, content) in enumerate(hostile_pictures())}
    assert len(corpus) >= 40
    Path("corpus").mkdir()
    for name, content in corpus.items():
        Path("corpus", name).write_bytes(content)
    picture(9, 9).save("corpus/good.png")

    result = run("corpus", "--output", "out")

    assert result.exit_code == 1
    assert result.stdout == "out/good_x2.png\n"
    *errors, summary = result.stderr.splitlines()
    assert summary == f"1 written, 0 there already, {len(corpus)} failed"
    told = {line.removeprefix("ghostsr: error: ").split(": ")[0] for line in errors}
    assert told == {f"corpus/{name}" for name in corpus}
    assert len(errors) == len(corpus)
    assert [path.name for path in Path("out").iterdir()] == ["good_x2.png"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux gives it")
def test_a_picture_of_108_million_pixels_stays_under_2_gib(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    save_model(EDSR(scale=2, blocks=1, features=4), tmp_path / "net.safetensors")
    stripes = np.zeros((9000, 12000, 3), np.uint8)
    stripes[::7] = 200
    Image.fromarray(stripes).save(tmp_path / "large.png", compress_level=1)
    del stripes
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from ghostsr_cli.upscale import upscale_command
        upscale_command([sys.argv[1]], model=sys.argv[2])
        # That of this program; the one that getrusage tells is inherited from the tests' process.
        lines = Path("/proc/self/status").read_text().splitlines()
        print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")))
        """
    )

    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "large.png", tmp_path / "net.safetensors"],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) < 2 << 20
    with Image.open(tmp_path / "large_x2.png") as image:
        assert image.size == (24000, 18000)
