"""Enlarging video, frame by frame, with PyAV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.files import atomic_write
from ghostsr_ext.imaging import MAX_PIXELS
from ghostsr_ext.inference.upscaler import Upscaler

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

_CODECS = {".webm": "libvpx-vp9"}
_DEFAULT_CODEC = "libx264"
_CODEC_OPTIONS = {
    "libx264": {"crf": "17", "preset": "medium"},
    "libvpx-vp9": {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "4"},
}
# FFmpeg's number of the colour space of high-definition television.
_BT709 = 1


def upscale_video(
    upscaler: Upscaler,
    source: Path,
    target: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Enlarge a video: every frame of its first picture stream.

    Time stamps are kept, and with them the frame rate, constant or not. Sound is copied as it is.
    The frames are stored upright, as H.264 (VP9 in ``.webm``), nearly lossless.

    Args:
        upscaler: The network.
        source: A video that FFmpeg reads.
        target: Its suffix decides the container. It appears whole or not at all.
        overwrite: Whether an existing file may be replaced.
        progress: Called after each frame with the part done, in 0..1, where the length is known.

    Raises:
        GhostsrError: PyAV is not installed.
        InputError: The source is no video, broken or too large, or the target cannot be written.
    """
    try:
        import av
    except ImportError as error:
        raise GhostsrError("video needs PyAV: pip install 'ghostsr[video]'") from error
    try:
        with (
            av.open(str(source)) as reader,
            atomic_write(target, overwrite=overwrite) as temporary,
            av.open(str(temporary), "w", format=_container(target)) as writer,
        ):
            _transcode(upscaler, reader, writer, source, target, progress)
    except av.error.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{source}: cannot be read or enlarged as a video ({reason})") from error


def _container(target: Path) -> str:
    names = {".mkv": "matroska", ".m4v": "mp4"}
    return names.get(target.suffix.lower(), target.suffix.lower().removeprefix("."))


def _transcode(
    upscaler: Upscaler,
    reader: InputContainer,
    writer: OutputContainer,
    source: Path,
    target: Path,
    progress: Callable[[float], None] | None,
) -> None:
    if not reader.streams.video:
        raise InputError(f"{source}: has no pictures")
    video = reader.streams.video[0]
    video.thread_type = "AUTO"
    if video.width * video.height > MAX_PIXELS:
        raise InputError(f"{source}: {video.width}x{video.height} is too large")
    sound = {
        stream.index: writer.add_stream_from_template(stream) for stream in reader.streams.audio
    }
    codec = _CODECS.get(target.suffix.lower(), _DEFAULT_CODEC)
    encoder: Any = None
    # Nothing may be written before all streams are known, and the size is known from a frame.
    early: list[Any] = []
    done = 0
    for packet in reader.demux([video, *reader.streams.audio]):
        copied = sound.get(packet.stream_index)
        if copied is not None:
            # The last packet of a stream is empty: it would end the copy.
            if packet.dts is not None:
                packet.stream = copied
                early.append(packet)
            if encoder is not None:
                writer.mux(early)
                early.clear()
            continue
        for frame in packet.decode():
            enlarged = upscaler(_upright_rgb(frame, video))
            if encoder is None:
                encoder = _add_encoder(writer, codec, video, enlarged)
            writer.mux(encoder.encode(_to_frame(enlarged, frame, encoder, video)))
            done += 1
            if progress is not None and video.frames:
                progress(min(1.0, done / video.frames))
    if encoder is None:
        raise InputError(f"{source}: has no frames")
    writer.mux(early)
    writer.mux(encoder.encode(None))


def _upright_rgb(frame: Any, video: Any) -> NDArray[np.uint8]:
    rgb = frame.reformat(format="rgb24", src_colorspace=_colour_space(video)).to_ndarray()
    turned: NDArray[np.uint8] = np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))
    return turned


def _colour_space(video: Any) -> Any:
    from av.video.reformatter import Colorspace

    return Colorspace.ITU709 if video.codec_context.colorspace == _BT709 else Colorspace.ITU601


def _add_encoder(writer: Any, codec: str, video: Any, enlarged: NDArray[np.uint8]) -> Any:
    encoder = writer.add_stream(codec, rate=video.average_rate, options=_CODEC_OPTIONS[codec])
    encoder.height, encoder.width = enlarged.shape[:2]
    # Half as many colour rows and columns need an even size.
    even = encoder.height % 2 == 0 and encoder.width % 2 == 0
    encoder.pix_fmt = "yuv420p" if even else "yuv444p"
    context, original = encoder.codec_context, video.codec_context
    context.time_base = video.time_base
    for name in ("colorspace", "color_primaries", "color_trc", "color_range"):
        setattr(context, name, getattr(original, name))
    return encoder


def _to_frame(enlarged: NDArray[np.uint8], original: Any, encoder: Any, video: Any) -> Any:
    import av

    frame = av.VideoFrame.from_ndarray(enlarged, format="rgb24")
    frame = frame.reformat(format=encoder.pix_fmt, dst_colorspace=_colour_space(video))
    frame.pts, frame.time_base = original.pts, original.time_base
    return frame
