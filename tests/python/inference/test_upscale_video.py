import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from enlarger import Enlarger
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.inference import Upscaler, plan_jobs, upscale_files, upscale_video

av = pytest.importorskip("av", reason="video needs PyAV (extra: video)")

FRAMES = 10
RNG = np.random.default_rng(0)
COLORS = ((200, 100, 50), (30, 60, 90))


@pytest.fixture
def upscaler():
    return Upscaler(Enlarger())


def write_clip(path, rows=32, columns=48, rate=12, times=range(FRAMES), sound=True):
    """A bar that moves to the right by four columns a frame, with a tone."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate, options={"crf": "1"})
        video.height, video.width, video.pix_fmt = rows, columns, "yuv444p"
        video.codec_context.time_base = Fraction(1, rate)
        audio = container.add_stream("aac", rate=16000) if sound else None
        for i, time in enumerate(times):
            pixels = np.full((rows, columns, 3), COLORS[1], np.uint8)
            pixels[:, 4 * i : 4 * i + 8] = COLORS[0]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = time
            container.mux(video.encode(frame))
        for i in range(12 if sound else 0):
            tone = np.sin(np.arange(1024) / 5 + i).astype(np.float32)[None] / 2
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 1024 * i
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        if sound:
            container.mux(audio.encode(None))
    return path


def frames(path):
    with av.open(str(path)) as container:
        return [
            (float(frame.time), frame.to_ndarray(format="rgb24"))
            for frame in container.decode(video=0)
        ]


def audio_packets(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0)]


def test_every_frame_is_enlarged_at_its_time(tmp_path, upscaler):
    clip = write_clip(tmp_path / "a.mp4")

    upscale_video(upscaler, clip, tmp_path / "b.mp4")

    before, after = frames(clip), frames(tmp_path / "b.mp4")
    assert [time for time, _ in after] == pytest.approx([time for time, _ in before])
    for i, (_, pixels) in enumerate(after):
        assert pixels.shape == (64, 96, 3)
        np.testing.assert_allclose(pixels[32, 8 * i + 7], COLORS[0], atol=6)
        np.testing.assert_allclose(pixels[32, (8 * i + 40) % 96], COLORS[1], atol=6)


def test_the_sound_is_copied_bit_by_bit(tmp_path, upscaler):
    clip = write_clip(tmp_path / "a.mp4")

    upscale_video(upscaler, clip, tmp_path / "b.mp4")

    assert audio_packets(tmp_path / "b.mp4") == audio_packets(clip)


def test_an_uneven_frame_rate_is_kept(tmp_path, upscaler):
    clip = write_clip(tmp_path / "a.mp4", times=[0, 1, 5, 6, 20, 21], sound=False)

    upscale_video(upscaler, clip, tmp_path / "b.mp4")

    after = [time for time, _ in frames(tmp_path / "b.mp4")]
    assert after == pytest.approx([t / 12 for t in (0, 1, 5, 6, 20, 21)], abs=1e-3)


def test_an_odd_size_is_kept(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", rows=33, columns=49, sound=False)

    upscale_video(Upscaler(Enlarger(), scale=3), clip, tmp_path / "b.mp4")

    assert frames(tmp_path / "b.mp4")[0][1].shape == (99, 147, 3)


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mov"])
def test_other_containers_work(tmp_path, upscaler, suffix):
    clip = write_clip(tmp_path / "a.mp4", sound=False)

    upscale_video(upscaler, clip, tmp_path / f"b{suffix}")

    assert len(frames(tmp_path / f"b{suffix}")) == FRAMES


def test_progress_reaches_the_end(tmp_path, upscaler):
    told = []

    upscale_video(
        upscaler, write_clip(tmp_path / "a.mp4"), tmp_path / "b.mp4", progress=told.append
    )

    assert told == [(i + 1) / FRAMES for i in range(FRAMES)]


def test_videos_and_pictures_go_together(tmp_path, upscaler):
    clip = write_clip(tmp_path / "a.mp4")

    outcome = upscale_files(upscaler, plan_jobs([str(clip)], scale=2))

    assert outcome.written[0].target == tmp_path / "a_x2.mp4"
    assert outcome.written[0].target.exists()


def test_an_existing_result_is_kept(tmp_path, upscaler):
    clip = write_clip(tmp_path / "a.mp4")

    with pytest.raises(InputError, match="exists already"):
        upscale_video(upscaler, clip, clip)


def test_what_is_no_video_is_refused_and_leaves_nothing(tmp_path, upscaler):
    write_clip(tmp_path / "a.mp4")
    cut = (tmp_path / "a.mp4").read_bytes()[:400]
    for name, content in {"junk.mp4": b"no video" * 99, "cut.mp4": cut, "empty.mp4": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            upscale_video(upscaler, tmp_path / name, tmp_path / "b.mp4")

    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a.mp4", "junk.mp4", "cut.mp4", "empty.mp4"}


def test_sound_alone_is_no_video(tmp_path, upscaler):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        audio = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))

    with pytest.raises(InputError, match="has no pictures"):
        upscale_video(upscaler, tmp_path / "a.mp4", tmp_path / "b.mp4")


def test_without_pyav_it_says_what_to_install(tmp_path, upscaler, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)

    with pytest.raises(GhostsrError, match=r"pip install 'ghostsr\[video\]'"):
        upscale_video(upscaler, tmp_path / "a.mp4", tmp_path / "b.mp4")


def raw_clip(path, values, *, pixels="yuv420p", color_range=0, shape=None, codec="libx264"):
    """Frames of one color [Y, U, V] each, without loss."""
    rate = 10
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=rate, options={"crf": "0", "qp": "0"})
        video.height, video.width, video.pix_fmt = 32, 48, pixels
        video.codec_context.color_range = color_range
        if shape is not None:
            video.sample_aspect_ratio = shape
        for i, parts in enumerate(values):
            frame = av.VideoFrame(48, 32, pixels)
            for plane, value in zip(frame.planes, parts, strict=True):
                dtype = np.uint16 if "10" in pixels else np.uint8
                plane.update(np.full(plane.buffer_size // dtype().itemsize, value, dtype).tobytes())
            frame.pts, frame.time_base = i, Fraction(1, rate)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def first_values(path):
    """The first [Y, U, V] of each frame, as stored."""
    with av.open(str(path)) as container:
        return [
            [
                int(np.frombuffer(plane, np.uint16 if "10" in frame.format.name else np.uint8)[0])
                for plane in frame.planes
            ]
            for frame in container.decode(video=0)
        ]


def described(path):
    """Shape of pixels, range, and pixel format."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        context = video.codec_context
        return video.sample_aspect_ratio, context.color_range, context.pix_fmt


@pytest.mark.parametrize(
    ("pixels", "color_range", "values"),
    [
        ("yuv420p", 0, [(16, 128, 128), (235, 128, 128), (100, 110, 140)]),
        ("yuv420p", 1, [(16, 128, 128), (235, 128, 128), (100, 110, 140)]),
        ("yuv420p", 2, [(0, 128, 128), (254, 128, 128), (1, 128, 128), (100, 110, 140)]),
        ("yuv444p", 2, [(0, 128, 128), (254, 128, 128), (100, 110, 140)]),
        ("yuv420p10le", 1, [(64, 512, 512), (940, 512, 512), (401, 450, 560), (403, 450, 560)]),
        ("yuv420p10le", 2, [(0, 512, 512), (1023, 512, 512), (401, 450, 560)]),
    ],
)
def test_range_and_bits_are_kept_in_values_and_in_name(
    tmp_path, upscaler, pixels, color_range, values
):
    clip = raw_clip(tmp_path / "a.mp4", values, pixels=pixels, color_range=color_range)

    assert upscale_video(upscaler, clip, tmp_path / "b.mp4") == []

    tolerance = 2 if "10" in pixels else 1
    np.testing.assert_allclose(first_values(tmp_path / "b.mp4"), values, atol=tolerance)
    _, stored_range, stored_pixels = described(tmp_path / "b.mp4")
    assert stored_range == max(1, color_range)
    assert ("10" in stored_pixels) == ("10" in pixels)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi"])
def test_the_shape_of_pixels_is_kept(tmp_path, upscaler, suffix):
    clip = raw_clip(tmp_path / "a.mp4", [(100, 128, 128)], shape=Fraction(32, 27))

    upscale_video(upscaler, clip, tmp_path / f"b{suffix}")

    assert described(tmp_path / f"b{suffix}")[0] == Fraction(32, 27)


@pytest.mark.parametrize(
    ("shape", "size"), [(Fraction(32, 27), (64, 114)), (Fraction(1, 2), (128, 96))]
)
def test_a_webm_gets_square_pixels(tmp_path, upscaler, shape, size):
    clip = raw_clip(tmp_path / "a.mp4", [(100, 128, 128)], shape=shape)

    notes = upscale_video(upscaler, clip, tmp_path / "b.webm")

    assert notes == [f"pixels of the shape {shape} become square"]
    assert frames(tmp_path / "b.webm")[0][1].shape[:2] == size


def test_an_avi_starts_when_its_sound_does(tmp_path, upscaler):
    clip = write_clip(tmp_path / "a.mp4")

    upscale_video(upscaler, clip, tmp_path / "b.avi")

    times = [time for time, _ in frames(tmp_path / "b.avi")]
    assert times == pytest.approx([i / 12 for i in range(FRAMES)], abs=1e-3)


def test_what_a_format_cannot_hold_is_told(tmp_path, upscaler):
    clip = raw_clip(tmp_path / "a.mkv", [(401, 512, 512)], pixels="yuv420p10le")

    assert upscale_video(upscaler, clip, tmp_path / "b.avi") == ["10 bits become 8"]


def test_sound_that_a_format_cannot_hold_is_refused(tmp_path, upscaler):
    clip = write_clip(tmp_path / "a.mp4")

    with pytest.raises(InputError, match=r"sound \(aac\) cannot be stored in \.webm"):
        upscale_video(upscaler, clip, tmp_path / "b.webm")
    assert not (tmp_path / "b.webm").exists()


def film(path):
    """Two frames, sound in German, subtitles in French, and titles for all of it."""
    subtitles = path.with_suffix(".srt")
    subtitles.write_text("1\n00:00:00,000 --> 00:00:00,100\nBonjour\n\n")
    write_clip(path.with_name("clip.mp4"))
    with (
        av.open(str(path.with_name("clip.mp4"))) as clip,
        av.open(str(subtitles)) as words,
        av.open(str(path), "w") as container,
    ):
        container.metadata.update({"title": "A film", "comment": "Nice"})
        copies = {
            stream.index: container.add_stream_from_template(stream) for stream in clip.streams
        }
        copies[1].metadata.update({"language": "ger", "title": "Stereo"})
        text = container.add_stream_from_template(words.streams.subtitles[0])
        text.metadata["language"] = "fre"
        for packet in clip.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream_index]
                container.mux(packet)
        for packet in words.demux():
            if packet.dts is not None:
                packet.stream = text
                container.mux(packet)
        container.set_chapters(
            [{"id": 1, "start": 0, "end": 500, "time_base": Fraction(1, 1000), "metadata": {}}]
        )
    return path


@pytest.mark.parametrize("keep", [True, False])
def test_subtitles_languages_titles_and_chapters_are_kept(tmp_path, upscaler, keep):
    source = film(tmp_path / "a.mkv")

    notes = upscale_video(
        upscaler, source, tmp_path / "b.mkv", keep_metadata=keep, software="ghostsr 1"
    )

    assert notes == []
    with av.open(str(tmp_path / "b.mkv")) as result:
        said = {key.lower(): word for key, word in result.metadata.items()}
        video, sound, words = result.streams
        assert (video.type, sound.type, words.type) == ("video", "audio", "subtitle")
        assert (sound.metadata["language"], words.metadata["language"]) == ("ger", "fre")
        text = b"".join(bytes(packet) for packet in result.demux(words))
        assert b"Bonjour" in text
        assert said.get("title") == ("A film" if keep else None)
        assert said["comment"] == ("Nice\nghostsr 1" if keep else "ghostsr 1")
        assert sound.metadata.get("title") == ("Stereo" if keep else None)
        assert len(result.chapters()) == keep


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".avi", ".mp4", ".mov"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_truncated_file_is_told_before_anything_is_enlarged(tmp_path, upscaler, suffix, part):
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    values = [(10 * i, 128, 128) for i in range(2, 22)]
    clip = raw_clip(tmp_path / f"a{suffix}", values, codec=codec)
    content = clip.read_bytes()
    clip.write_bytes(content[: int(part * len(content))])

    with pytest.raises(InputError, match=rf"a\{suffix}: cannot be read"):
        upscale_video(upscaler, clip, tmp_path / f"b{suffix}")
    assert not (tmp_path / f"b{suffix}").exists()
    clip.write_bytes(content)
    upscale_video(upscaler, clip, tmp_path / f"b{suffix}")


def test_a_truncated_file_whose_index_comes_first_is_told(tmp_path, upscaler):
    with av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": "faststart"}) as container:
        video = container.add_stream("libx264", rate=10)
        video.height, video.width, video.pix_fmt = 32, 48, "yuv420p"
        for i in range(20):
            pixels = RNG.integers(0, 256, (32, 48, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = i
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    (tmp_path / "a.mp4").write_bytes(content[: len(content) // 2])

    with pytest.raises(InputError, match="bytes are missing at its end"):
        upscale_video(upscaler, tmp_path / "a.mp4", tmp_path / "b.mp4")


def test_the_small_files_that_went_wrong_are_right(tmp_path, upscaler, cases_dir):
    folder = cases_dir / "video"
    with pytest.raises(InputError, match="missing at its end"):
        upscale_video(upscaler, folder / "truncated.mkv", tmp_path / "truncated.mkv")
    for name in ("full_range.mp4", "anamorphic.mp4"):
        upscale_video(upscaler, folder / name, tmp_path / name)

    assert described(tmp_path / "anamorphic.mp4")[0] == Fraction(32, 27)
    assert described(tmp_path / "full_range.mp4")[1] == 2
    with (
        av.open(str(folder / "full_range.mp4")) as old,
        av.open(str(tmp_path / "full_range.mp4")) as new,
    ):
        small, large = next(old.decode(video=0)), next(new.decode(video=0))
        for values, most in ((small, 64), (large, 128)):
            luma = np.frombuffer(values.planes[0], np.uint8).reshape(values.height, -1)[:, :most]
            assert luma.min() <= 1
            assert luma.max() >= 253


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")
def test_a_full_disk_is_no_video(tmp_path):
    write_clip(tmp_path / "a.mp4")
    program = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        from enlarger import Enlarger
        from ghostsr_ext.errors import InputError
        from ghostsr_ext.inference import Upscaler, upscale_video
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        folder = Path(sys.argv[2])
        upscaler = Upscaler(Enlarger())
        upscale_video(upscaler, folder / "a.mp4", folder / "whole.mp4")
        size = (folder / "whole.mp4").stat().st_size
        for suffix in (".mp4", ".mkv", ".avi"):
            for limit in (0, 100, size // 4, size // 2):
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                try:
                    upscale_video(upscaler, folder / "a.mp4", folder / f"b{suffix}")
                except InputError as error:
                    assert "cannot be written (File too large)" in str(error), error
                else:
                    raise AssertionError((suffix, limit))
        """
    )

    done = subprocess.run(
        [sys.executable, "-c", program, Path(__file__).parents[1], tmp_path],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "whole.mp4"}
