"""12-bit data in 16-bit files: said by `check`, scaled by `bits` wherever an image is decoded."""

import io
import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inception.cli.main import run as command
from inception.data.augment import AUGMENTS
from inception.data.check import check_dataset
from inception.data.decode import decode_image, highest_value
from inception.data.depth import depth_notes
from inception.data.loader import Loader
from inception.data.preprocess import Preprocess
from inception.data.sources import open_dataset
from inception.errors import ImageError, UsageError
from inception.runtime.answering import open_image, opened
from inception.runtime.inputs import expand_inputs
from inception.runtime.loading import load
from inception.serve.answers import Answerer, Ask

FORMATS = ("png", "tif", "lzw", "pgm")
RAMP = np.linspace(0, 4095, 64, dtype=np.uint16)[None].repeat(48, axis=0)
WHITE = np.rint(RAMP * (255 / 4095)).astype(np.uint8)
TWELVE = Preprocess(48, 48, bits=12)


def grey(values: np.ndarray, kind: str) -> bytes:
    """A file with 16 bits a sample."""
    if kind == "pgm":
        return b"P5 %d %d 65535\n" % values.shape[::-1] + values.astype(">u2").tobytes()
    stream = io.BytesIO()
    options = {"compression": "tiff_lzw"} if kind == "lzw" else {}
    Image.fromarray(values).save(stream, "PNG" if kind == "png" else "TIFF", **options)
    return stream.getvalue()


def colour_png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a colour, which Pillow does not write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((16, 2, 0, 0, 0))
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = [
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


COLOUR = colour_png(np.stack([RAMP] * 3, axis=-1))


def folder_of(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


@pytest.fixture
def microscope(tmp_path) -> Path:
    """Two classes of four images each, 12 bits in 16."""
    files = {
        f"{label}/{number}.png": grey((RAMP // (number + 1) + place).clip(0, 4095).astype(np.uint16), "png")
        for place, label in enumerate(("benign", "malign"))
        for number in range(4)
    }
    return folder_of(tmp_path / "set", files)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_depth_that_is_given_is_the_full_range(kind):
    data = grey(RAMP, kind)
    picture = np.asarray(decode_image(data, bits=12))
    assert np.abs(picture[:, :, 0].astype(int) - WHITE).max() <= 1
    assert highest_value(data) == 4095
    # Dark ones are not made brighter than the others.
    half = np.asarray(decode_image(grey(RAMP // 64, kind), bits=12))
    assert half.max() == pytest.approx(4, abs=1)


@pytest.mark.parametrize("kind", FORMATS)
def test_higher_values_are_refused_not_clipped(kind):
    with pytest.raises(ImageError, match=r"holds values up to 5,000, and 12 bits \(--bits\) end at 4,095"):
        decode_image(grey(np.full((4, 4), 5000, np.uint16), kind), bits=12, name="x")


def test_loaded_images_are_scaled_too():
    image = Image.fromarray(RAMP)
    assert np.abs(np.asarray(open_image(image, 12))[:, :, 0].astype(int) - WHITE).max() <= 1


def test_images_of_8_bits_are_what_they_were():
    for kind in ("PNG", "JPEG", "TIFF", "PPM"):
        stream = io.BytesIO()
        Image.fromarray(WHITE).convert("RGB").save(stream, kind)
        data = stream.getvalue()
        assert highest_value(data) is None
        assert np.array_equal(decode_image(data), decode_image(data, bits=12))


def test_a_stated_range_is_kept():
    # The header of a PGM says what is white.
    data = b"P5 64 48 4095\n" + RAMP.astype(">u2").tobytes()
    assert highest_value(data) is None
    for bits in (0, 12):
        assert np.abs(np.asarray(decode_image(data, bits=bits))[:, :, 0].astype(int) - WHITE).max() <= 1
    dark = b"P5 64 48 4095\n" + (RAMP // 64).astype(">u2").tobytes()
    assert np.asarray(decode_image(dark)).max() <= 5


def test_colour_of_16_bits_is_refused_by_name():
    assert highest_value(COLOUR) == 4095
    assert np.asarray(decode_image(COLOUR)).max() == 15
    with pytest.raises(ImageError, match="x is a colour image of 16 bits, of which 8 are read"):
        decode_image(COLOUR, bits=12, name="x")


def fits(count: int, top: int, bits: int) -> str:
    """The note for images of a fitting depth."""
    return f"{count} of {count} 16-bit images hold values up to {top} only: --bits {bits} uses the full range"


@pytest.mark.parametrize(
    "peaks, colour, bits, notes",
    [
        ([], False, 0, []),
        ([4095, 100], False, 0, [fits(2, 4095, 12)]),
        ([1000], False, 0, [fits(1, 1023, 10)]),
        ([16383], False, 0, [fits(1, 16383, 14)]),
        ([16384, 100], False, 0, []),
        ([4000], False, 12, []),
        ([4000], False, 14, [fits(1, 4095, 12)]),
        (
            [4000] * 19 + [60000],
            False,
            0,
            [
                "19 of 20 16-bit images hold values up to 4095 only, and are dark beside the others: "
                "are they of 12 bits?"
            ],
        ),
        (
            [4095],
            True,
            0,
            [
                "1 of 1 16-bit colour images hold values up to 4095 only: they come out dark, as 8 of their "
                "bits are read: multiply their values by 16"
            ],
        ),
    ],
)
def test_notes(peaks, colour, bits, notes):
    assert depth_notes(peaks, colour, bits) == notes


def test_check_says_it_once_and_is_content_with_the_option(microscope, capsys):
    [note] = check_dataset(microscope).notes
    assert note == "8 of 8 16-bit images hold values up to 4095 only: --bits 12 uses the full range"
    assert check_dataset(microscope, bits=12).notes == ()
    folder_of(microscope, {"benign/colour.png": COLOUR})
    first, second = check_dataset(microscope).notes
    assert (first, second.startswith("1 of 1 16-bit colour images")) == (note, True)
    command(["check", str(microscope), "--bits", "10", "--json"])
    unreadable = json.loads(capsys.readouterr().out)["unreadable"]
    assert any(
        "holds values up to 4,095, and 10 bits (--bits) end at 1,023" in row["message"] for row in unreadable
    )


def test_check_reads_deep_images_with_much_text(microscope):
    chunks = grey(RAMP, "png")
    text = b"Comment\0" + b"x" * 2_000_000
    chunk = len(text).to_bytes(4, "big") + b"tEXt" + text + zlib.crc32(b"tEXt" + text).to_bytes(4, "big")
    folder_of(microscope, {"benign/text.png": chunks[:33] + chunk + chunks[33:]})
    report = check_dataset(microscope)
    assert report.unreadable == ()
    assert report.notes[0].startswith("9 of 9 16-bit images")


def test_an_option_without_use_is_said(make_tree):
    [note] = check_dataset(make_tree(["a/0.png", "a/1.png", "b/0.png", "b/1.png"]), bits=12).notes
    assert note == "--bits 12 changes nothing: no grey image is stored in 16 bits"


def test_loaders_give_every_view_at_this_depth(microscope):
    dataset = open_dataset(microscope, val_fraction=0)
    loader = Loader(dataset, dataset.samples)
    dark, bright = (
        torch.cat([batch.images for batch in loader.evaluation_batches(item, 4)])
        for item in (replace(TWELVE, bits=0), TWELVE)
    )
    assert int(dark.max()) < 17
    assert int(bright.max()) > 220
    for cache_bytes in (0, 2**30):
        cuts = Loader(dataset, dataset.samples, cache_bytes=cache_bytes)
        for epoch in (0, 1):
            batches = cuts.training_batches(TWELVE, AUGMENTS["crop"], 4, 0, epoch)
            assert max(int(batch.images.max()) for batch in batches) > 200


def test_inputs_of_commands_are_opened_at_this_depth(microscope):
    for path in (microscope, microscope / "benign" / "0.png"):
        [first, *_] = [opener for _, opener in expand_inputs([str(path)], ())]
        assert np.asarray(opened(first, TWELVE)).max() == 255
        assert np.asarray(opened(first, replace(TWELVE, bits=0))).max() <= 16


@pytest.mark.parametrize("bits", [7, 17, 12.0, True, -1])
def test_impossible_depths(bits):
    with pytest.raises(UsageError, match="bits must be 0 or a whole number in 8"):
        Preprocess(bits=bits)


def test_older_bundles_lack_it():
    assert "bits" not in Preprocess().to_dict()
    assert Preprocess.from_dict(Preprocess().to_dict()).bits == 0
    assert Preprocess.from_dict(TWELVE.to_dict()) == TWELVE


def test_a_bundle_keeps_it_from_training_on(microscope, tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--model", "lenet5", "--epochs", "1", "--batch-size", "2", "--device", "cpu", "--seed", "1"]
    assert command(["train", str(microscope), "--bits", "12", "-o", str(run), *options]) == 0
    bundle = run / "bundle"
    classifier = load(bundle, "cpu")
    assert classifier.preprocess.bits == 12
    picture = microscope / "benign" / "0.png"
    expected = classifier.preprocess.apply(decode_image(picture.read_bytes(), bits=12))
    assert int(expected.max()) > 220
    # The same answer from a path, bytes, a folder, and the server's and the exporter's ways.
    probabilities = classifier.probabilities(expected[None])[0].sort(descending=True).values.tolist()
    items = list(expand_inputs([str(microscope / "benign")], ()))[:1]
    answers = [*classifier.predict([picture, picture.read_bytes()]), *classifier.predict_stream(items)]
    for answer in answers:
        assert [score.probability for score in answer.top] == pytest.approx(probabilities, abs=1e-6)
    assert torch.equal(Answerer(classifier, 10**8, False).open(Ask("file"), picture.read_bytes()), expected)
    capsys.readouterr()
    assert command(["evaluate", str(bundle), str(microscope), "--json"]) == 0
    above = folder_of(tmp_path / "above", {"x.png": grey(np.full((48, 48), 9000, np.uint16), "png")})
    assert "holds values up to 9,000" in classifier.predict(above / "x.png")[0].error
