"""Damaged, hostile and endless files: a picture or an `ImageError`, soon and in little memory."""

import io
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inception.data.decode import decode_image
from inception.errors import ImageError


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def failure(data: bytes, **options) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(data, **options)
    return caught.value


def png_of_one_byte(width: int, height: int) -> bytes:
    """A PNG that promises `width` x `height` pixels and brings one byte of them."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"x")), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data


def test_too_many_pixels_are_refused_without_decoding():
    bomb = encode(Image.new("1", (11600, 11600)), "PNG")
    start = time.perf_counter()
    error = failure(bomb, max_pixels=10**8)
    assert error.kind == "too_large"
    assert "11600 x 11600" in str(error)
    assert time.perf_counter() - start < 0.1
    limit = 64 * 64
    data = encode(picture(), "PNG")
    assert decode_image(data, max_pixels=limit).size == (64, 64)
    assert failure(data, max_pixels=limit - 1).kind == "too_large"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_truncation_is_a_typed_error(kind):
    data = encode(picture(), kind)
    kinds = set()
    for length in range(0, len(data) * 3 // 4, max(1, len(data) // 150)):
        kinds.add(failure(data[:length]).kind)
    assert kinds <= {"empty", "format", "truncated", "corrupt"}
    assert failure(data[: len(data) * 3 // 4]).kind in ("truncated", "corrupt")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_a_file_cut_within_its_pixels_is_called_truncated(kind):
    data = encode(picture(), kind)
    error = failure(data[: len(data) * 2 // 3], name="half")
    assert error.kind == "truncated"
    assert "half" in str(error)


def test_empty_and_foreign_files_say_so():
    assert failure(b"").kind == "empty"
    assert failure(b"hello, this is text").kind == "format"
    assert failure(b"\xff\xd8\xff" + b"\0" * 50).kind == "corrupt"


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_gives_a_picture_or_an_image_error(data):
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"]))
    damaged = bytearray(encode(picture().resize((24, 18)), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, min(len(damaged) - 1, 400)))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_image(bytes(damaged), max_pixels=10**6)
    except ImageError:
        return
    assert decoded.mode == "RGB"


# ru_maxrss would start at the parent's peak; the kernel's own mark starts anew with a program.
PEAK = """
import re
def peak_megabytes():
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1]) / 1024
"""
BAD_IMAGES = """
import sys, time, zipfile
from inception.data.decode import decode_image
from inception.errors import ImageError
with zipfile.ZipFile(sys.argv[1]) as archive:
    files = [archive.read(name) for name in archive.namelist()]
peaks = []
for _ in range(4):
    for data in files:
        start = time.perf_counter()
        try:
            assert decode_image(data).mode == "RGB"
        except ImageError:
            pass
        assert time.perf_counter() - start < 5
    peaks.append(peak_megabytes())
print(len(files), peaks[-1] - peaks[0], peaks[-1])
"""


def peak_memory_of(program: str, *arguments: str) -> list[float]:
    """The numbers that a program prints; run by itself, because a crash in C could not be caught here."""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc, which this system lacks")
    command = [sys.executable, "-W", "error", "-c", PEAK + program, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return [float(word) for word in run.stdout.split()]


def test_no_bad_file_crashes_hangs_or_grows(shared):
    count, growth, peak = peak_memory_of(BAD_IMAGES, str(shared / "data" / "bad-images.zip"))
    assert count > 0
    assert growth < 16
    assert peak < 400


def test_a_progressive_jpeg_of_endless_scans_is_refused():
    honest = encode(Image.new("L", (4000, 4000), 128), "JPEG", progressive=True)
    assert decode_image(honest).size == (4000, 4000)
    last_scan = honest[honest.rindex(b"\xff\xda") : -2]
    attack = honest[:-2] + last_scan * 5000 + honest[-2:]
    start = time.perf_counter()
    assert failure(attack).kind == "too_large"
    assert time.perf_counter() - start < 1
    with pytest.raises(ImageError, match="6 scans"):
        decode_image(honest, max_scanned_pixels=6 * 4000 * 4000 - 1)
    assert decode_image(honest, max_scanned_pixels=6 * 4000 * 4000).size == (4000, 4000)


GIANT_HEADER = """
import struct
from inception.data.decode import decode_image
from inception.errors import ImageError
before = peak_megabytes()
size = (16382).to_bytes(3, "little")
canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + size + size
frame = b"VP8L" + struct.pack("<I", 8) + bytes([0x2F]) + bytes([255]) * 7
body = b"WEBP" + canvas + frame
try:
    decode_image(b"RIFF" + struct.pack("<I", len(body)) + body)
except ImageError:
    print(peak_megabytes() - before)
"""


def test_a_header_that_promises_a_giant_takes_no_memory():
    assert peak_memory_of(GIANT_HEADER)[0] < 64
    assert failure(png_of_one_byte(60000, 60000)).kind == "too_large"
    assert failure(png_of_one_byte(300, 300)).kind in ("truncated", "corrupt")
