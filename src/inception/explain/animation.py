"""Pictures in a row as one moving file: GIF, or MP4 through an optional library."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inception.errors import UsageError
from inception.files import atomic_path

FORMATS = (".gif", ".mp4")


def check_format(path: Path) -> None:
    """Raise UsageError when `path` is of no format that can be written here, before work is put into it."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"an animation is written as {' or '.join(FORMATS)}, not '{path.name}'")
    if suffix == ".mp4":
        _ffmpeg()


def write_animation(path: Path, frames: Iterable[Image.Image], per_second: float = 12.0) -> None:
    """Write `frames`, RGB of one size, to `path` (.gif or .mp4), atomically.

    MP4 is H.264 with yuv420p, which every browser plays; odd sizes lose their last row or column.
    Raises UsageError for another format, no frames, or MP4 without the extra `explain`.
    """
    check_format(path)
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise UsageError("an animation needs at least one frame")
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".gif":
            rest = [_palette(frame) for frame in pictures]
            _palette(first).save(
                temporary,
                "GIF",
                save_all=True,
                append_images=rest,
                duration=round(1000 / per_second),
                loop=0,
            )
            return
        size = (first.width // 2 * 2, first.height // 2 * 2)
        # The library chooses the container by the name.
        movie = temporary.with_suffix(".mp4")
        writer = _ffmpeg().write_frames(str(movie), size, fps=per_second, macro_block_size=2, quality=7)
        writer.send(None)
        try:
            for frame in (first, *pictures):
                writer.send(np.ascontiguousarray(frame.crop((0, 0, *size))))
        finally:
            writer.close()
        movie.replace(temporary)


def _palette(frame: Image.Image) -> Image.Image:
    return frame.quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)


def _ffmpeg() -> Any:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise UsageError(
            "MP4 needs an optional library: pip install 'inception[explain]', or write a .gif"
        ) from error
    return imageio_ffmpeg
