from fractions import Fraction

import numpy as np
import pytest
from enlarger import Enlarger
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.inference import Upscaler, plan_jobs, upscale_files, upscale_video

av = pytest.importorskip("av", reason="video needs PyAV (extra: video)")

FRAMES = 10
COLOURS = ((200, 100, 50), (30, 60, 90))


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
            pixels = np.full((rows, columns, 3), COLOURS[1], np.uint8)
            pixels[:, 4 * i : 4 * i + 8] = COLOURS[0]
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
        np.testing.assert_allclose(pixels[32, 8 * i + 7], COLOURS[0], atol=6)
        np.testing.assert_allclose(pixels[32, (8 * i + 40) % 96], COLOURS[1], atol=6)


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
