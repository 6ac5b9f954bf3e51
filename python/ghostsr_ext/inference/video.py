"""Enlarging video, frame by frame, with PyAV."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.files import atomic_write
from ghostsr_ext.imaging import MAX_PIXELS
from ghostsr_ext.inference.containers import missing_bytes
from ghostsr_ext.inference.upscaler import Upscaler

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

# H.264 in AVI, which knows no order of display, is played a frame late.
_CODECS = {".webm": "libvpx-vp9", ".avi": "mpeg4"}
_DEFAULT_CODEC = "libx264"
_CODEC_OPTIONS = {
    "libx264": {"crf": "17", "preset": "medium"},
    "libvpx-vp9": {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "4"},
    "mpeg4": {"qmin": "2", "qmax": "2"},
}
# FFmpeg's numbers of color matrices, and of the values of black and white.
_BT709, _BT470BG, _SMPTE170M, _SMPTE240M, _FCC, _BT2020 = 1, 5, 6, 7, 4, 9
_KNOWN_MATRICES = (_BT709, _FCC, _BT470BG, _SMPTE170M, _SMPTE240M, _BT2020)
_LIMITED, _FULL = 1, 2
_UNSPECIFIED = 2
# What a container says of itself and its making; the new one says it anew.
_TECHNICAL = frozenset(
    (
        "major_brand",
        "minor_version",
        "compatible_brands",
        "encoder",
        "duration",
        "vendor_id",
        "software",
    )
)
_STATISTICS = ("bps", "number_of_", "_statistics_")
_KINDS = {"audio": "sound", "subtitle": "subtitles", "attachment": "an attachment"}


def upscale_video(
    upscaler: Upscaler,
    source: Path,
    target: Path,
    *,
    overwrite: bool = False,
    keep_metadata: bool = True,
    software: str | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[str]:
    """Enlarge a video: every frame of its first picture stream.

    Time stamps are kept, and with them the frame rate, constant or not; so are the shape of the
    pixels, the color matrix, the range of values (limited or full) and 10 bits. Sound, subtitles
    and attachments are copied as they are, with their languages. The frames are stored upright, as
    H.264 (VP9 in ``.webm``; MPEG-4 in ``.avi``, which has 8 bits and a limited range), nearly
    lossless.

    Args:
        upscaler: The network.
        source: A video that FFmpeg reads.
        target: Its suffix decides the container. It appears whole or not at all.
        overwrite: Whether an existing file may be replaced.
        keep_metadata: Whether to copy titles, comments and chapters.
        software: Text that says what made the result, stored as a comment; or None.
        progress: Called after each frame with the part done, in 0..1, where the length is known.

    Returns:
        What the result lacks of the source, or else has to be known of it; empty for nothing.

    Raises:
        GhostsrError: PyAV is not installed.
        InputError: The source is no video, truncated, broken or too large, or the target cannot be
            written or hold the source's sound.
    """
    try:
        import av
    except ImportError as error:
        raise GhostsrError("video needs PyAV: pip install 'ghostsr[video]'") from error
    try:
        missing = missing_bytes(source)
        if missing:
            raise InputError(
                f"{source}: cannot be read as a whole: {missing} bytes are missing at its end"
            )
        with (
            av.open(str(source)) as reader,
            atomic_write(target, overwrite=overwrite) as temporary,
            _CheckedFile(temporary) as file,
            av.open(
                file, "w", format=_container(target), container_options=_options(target)
            ) as writer,
        ):
            job = _Transcoding(upscaler, reader, writer, source, target)
            job.copy_descriptions(keep_metadata=keep_metadata, software=software)
            job.run(progress)
        return job.notes
    except av.error.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{source}: cannot be read or enlarged as a video ({reason})") from error
    except FileNotFoundError as error:
        raise InputError(f"{source}: cannot be read (it does not exist)") from error


class _CheckedFile:
    """A file for FFmpeg to write to, which remembers errors: FFmpeg passes over some."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb+")
        self._error: OSError | None = None
        self.name = str(path)

    def __enter__(self) -> _CheckedFile:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            if self._error is not None:
                raise self._error

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def write(self, content: bytes) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self._error = error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            self._error = error
            raise

    def tell(self) -> int:
        return self._file.tell()


def _container(target: Path) -> str:
    names = {".mkv": "matroska", ".m4v": "mp4"}
    return names.get(target.suffix.lower(), target.suffix.lower().removeprefix("."))


def _options(target: Path) -> dict[str, str]:
    # AVI counts frames from 0: sound that begins before them must not push them back.
    return {"avoid_negative_ts": "disabled"} if target.suffix.lower() == ".avi" else {}


@dataclass
class _Transcoding:
    """One video on its way.

    Attributes:
        upscaler: The network.
        reader: The source, opened.
        writer: The target, opened.
        source: Its path.
        target: Its path.
        notes: What the result lacks.
    """

    upscaler: Upscaler
    reader: InputContainer
    writer: OutputContainer
    source: Path
    target: Path
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        videos = list(self.reader.streams.video)
        pictures = [stream for stream in videos if not _is_cover(stream)] or videos
        if not pictures:
            raise InputError(f"{self.source}: has no pictures")
        self._video: Any = pictures[0]
        self._video.thread_type = "AUTO"
        width, height = self._video.width, self._video.height
        if width * height > MAX_PIXELS:
            raise InputError(f"{self.source}: {width}x{height} is too large")
        self._colors = _Colors.of(self._video)
        self._stored = self._colors
        self._encoder: Any = None
        self._ready = False
        self._copied: dict[int, Any] = {}
        for stream in self.reader.streams:
            if stream.index == self._video.index:
                self._encoder = self._new_encoder()
            else:
                self._copy(stream)

    def copy_descriptions(self, *, keep_metadata: bool, software: str | None) -> None:
        """Take titles, languages and chapters over, and say what made the result."""
        said = _words(self.reader.metadata) if keep_metadata else {}
        if software is not None:
            comment = next((said.pop(key) for key in list(said) if key.lower() == "comment"), None)
            said["comment"] = software if comment is None else f"{comment}\n{software}"
        self.writer.metadata.update(said)
        for index, copy in self._copied.items():
            words = _words(self.reader.streams[index].metadata)
            copy.metadata.update(
                words
                if keep_metadata
                else {key: word for key, word in words.items() if key.lower() == "language"}
            )
            with contextlib.suppress(AttributeError, TypeError):
                copy.disposition = self.reader.streams[index].disposition
        chapters = self.reader.chapters()
        if keep_metadata and chapters:
            self.writer.set_chapters(chapters)

    def run(self, progress: Callable[[float], None] | None) -> None:
        """Enlarge all frames and copy the rest."""
        # Nothing may be written before all streams are known, and the size is known from a frame.
        early: list[Any] = []
        done = damaged = 0
        interlaced = False
        streams = [self._video, *(self.reader.streams[index] for index in self._copied)]
        for packet in self.reader.demux(streams):
            copied = self._copied.get(packet.stream_index)
            if copied is not None:
                # The last packet of a stream is empty: it would end the copy.
                if packet.dts is not None:
                    packet.stream = copied
                    early.append(packet)
                if self._ready:
                    self.writer.mux(early)
                    early.clear()
                continue
            frame: Any
            for frame in packet.decode():
                enlarged = self.upscaler(self._upright_rgb(frame))
                if not self._ready:
                    self._set_up_encoder(enlarged, round(frame.rotation / 90))
                self.writer.mux(self._encoder.encode(self._to_frame(enlarged, frame)))
                done += 1
                damaged += frame.is_corrupt
                interlaced |= frame.interlaced_frame
                if progress is not None and self._video.frames:
                    progress(min(1.0, done / self._video.frames))
        if not self._ready:
            raise InputError(f"{self.source}: has no frames")
        self.writer.mux(early)
        self.writer.mux(self._encoder.encode(None))
        if damaged:
            self.notes.append(f"{damaged} of {done} frames are damaged")
        if interlaced:
            self.notes.append("is interlaced: both fields are enlarged as one picture")

    def _copy(self, stream: Any) -> None:
        """Announce a stream that is copied, or note that it is not."""
        if stream.type == "video":
            what = "a cover picture" if _is_cover(stream) else "a second picture stream"
            self.notes.append(f"{what} is left out")
            return
        if stream.type not in _KINDS:
            self.notes.append(f"a stream of type {stream.type} is left out")
            return
        context = stream.codec_context
        codec = "" if context is None else context.name
        same = _container(self.target) in self.reader.format.name.split(",")
        if not same and codec and codec not in self.writer.supported_codecs:
            self._cannot_copy(stream, codec)
            return
        try:
            self._copied[stream.index] = self.writer.add_stream_from_template(stream)
        except (ValueError, TypeError, NotImplementedError) as error:
            self._cannot_copy(stream, codec, error)

    def _cannot_copy(self, stream: Any, codec: str, error: Exception | None = None) -> None:
        lost = f"{_KINDS[stream.type]} ({codec}) cannot be stored in {self.target.suffix}"
        if stream.type == "audio":
            raise InputError(
                f"output {self.target}: {lost}; name another format, such as .mkv"
            ) from error
        self.notes.append(f"{lost}: left out")

    def _upright_rgb(self, frame: Any) -> NDArray[Any]:
        rgb = _reformatted(frame, self._colors.rgb_format, self._colors, to_rgb=True).to_ndarray()
        turned: NDArray[Any] = np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))
        return turned

    def _new_encoder(self) -> Any:
        codec = _CODECS.get(self.target.suffix.lower(), _DEFAULT_CODEC)
        rate = self._video.average_rate
        encoder: Any = self.writer.add_stream(codec, rate=rate, options=_CODEC_OPTIONS[codec])
        encoder.metadata.update(_words(self._video.metadata))
        return encoder

    def _set_up_encoder(self, enlarged: NDArray[Any], turns: int) -> None:
        """Tell the encoder what is known from the first frame on."""
        encoder, video, colors = self._encoder, self._video, self._colors
        context, original = encoder.codec_context, video.codec_context
        encoder.height, encoder.width = enlarged.shape[:2]
        # Half as many color rows and columns need an even size.
        even = encoder.height % 2 == 0 and encoder.width % 2 == 0
        name, bits = "yuv420p" if even else "yuv444p", 8
        context.time_base = video.time_base
        if context.name == "mpeg4":
            # It says neither matrix nor range: what players take for granted is what is stored.
            name = "yuv420p"
            self._stored = _Colors(_usual_matrix(*enlarged.shape[:2]), _LIMITED, 8, False)
            context.time_base = 1 / video.average_rate
        elif colors.bits > 8 and context.name == "libx264":
            name, bits = f"{name}10le", 10
        encoder.pix_fmt = name
        shape = Fraction(video.sample_aspect_ratio or 1)
        shape = 1 / shape if turns % 2 else shape
        if context.name != "libvpx-vp9":
            encoder.sample_aspect_ratio = shape
        elif shape != 1:
            # VP9 does not know the shape of pixels: they are stretched instead.
            encoder.width = round(encoder.width * max(1, shape) / 2) * 2
            encoder.height = round(encoder.height / min(1, shape) / 2) * 2
            self.notes.append(f"pixels of the shape {shape} become square")
        context.colorspace, context.color_range = self._stored.matrix, self._stored.range
        context.color_primaries = original.color_primaries
        context.color_trc = original.color_trc
        if colors.bits > bits:
            self.notes.append(f"{colors.bits} bits become {bits}")
        if colors.opacity:
            self.notes.append("opacity is left out")
        self._ready = True

    def _to_frame(self, enlarged: NDArray[Any], original: Any) -> Any:
        import av

        frame = av.VideoFrame.from_ndarray(enlarged, format=self._colors.rgb_format)
        if (frame.width, frame.height) != (self._encoder.width, self._encoder.height):
            frame = frame.reformat(
                width=self._encoder.width, height=self._encoder.height, interpolation="BICUBIC"
            )
        frame = _reformatted(frame, self._encoder.pix_fmt, self._stored, to_rgb=False)
        frame.pts, frame.time_base = original.pts, original.time_base
        return frame


@dataclass(frozen=True)
class _Colors:
    """What the values of a video's frames mean.

    Attributes:
        matrix: FFmpeg's number of the color matrix.
        range: Whether black and white are 16 and 235 (1) or 0 and 255 (2).
        bits: Bits of each value.
        opacity: Whether there is opacity.
        is_rgb: Whether red, green and blue are stored as they are.
    """

    matrix: int
    range: int
    bits: int
    opacity: bool
    is_rgb: bool = False

    @staticmethod
    def of(video: Any) -> _Colors:
        """Read what a stream says; what it leaves open is as players take it."""
        context = video.codec_context
        matrix = context.colorspace
        if matrix not in _KNOWN_MATRICES:
            matrix = _usual_matrix(video.height, video.width)
        pixel_format = context.format
        name = pixel_format.name if pixel_format is not None else ""
        full = context.color_range == _FULL or name.startswith("yuvj")
        bits = max((part.bits for part in pixel_format.components), default=8) if name else 8
        return _Colors(
            matrix,
            _FULL if full else _LIMITED,
            bits,
            name.startswith(("yuva", "rgba", "gbrap", "ya")),
            name.startswith(("rgb", "bgr", "gbr", "pal")),
        )

    @property
    def rgb_format(self) -> str:
        """FFmpeg's name of the RGB values that the network gets."""
        return "rgb24" if self.bits <= 8 else "rgb48le"


def _usual_matrix(rows: int, columns: int) -> int:
    """The matrix that players take where a file names none."""
    return _BT709 if rows > 576 or columns >= 1280 else _SMPTE170M


def _reformatted(frame: Any, pixel_format: str, colors: _Colors, *, to_rgb: bool) -> Any:
    """Change between RGB and the values that are stored."""
    matrix = _BT470BG if colors.matrix == _SMPTE170M else colors.matrix
    ranges = (colors.range, _FULL) if to_rgb else (_FULL, colors.range)
    # FFmpeg's short cuts from and to colors of half a size are off by a level or two.
    whole = "yuv444p" if colors.bits <= 8 else "yuv444p16le"
    if to_rgb and not colors.is_rgb:
        frame = frame.reformat(
            format=whole,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=colors.range,
            dst_color_range=colors.range,
        )
    frame = frame.reformat(
        format=pixel_format if to_rgb else whole,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=ranges[0],
        dst_color_range=ranges[1],
    )
    if not to_rgb:
        frame = frame.reformat(
            format=pixel_format,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=colors.range,
            dst_color_range=colors.range,
        )
    return frame


def _is_cover(stream: Any) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def _words(metadata: dict[str, str]) -> dict[str, str]:
    """What was said about a film, without what a container says about itself."""
    return {
        # QuickTime's own key, by which it is read but not written.
        "title" if key == "name" else key: word
        for key, word in metadata.items()
        if key.lower() not in _TECHNICAL and not key.lower().startswith(_STATISTICS)
    }
