"""What decoding would take is known before it is done; what is too much is refused, with the option."""

import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from inception.data.decode import decode_image
from inception.data.memory import LIMIT_VARIABLE, estimate, room_for
from inception.errors import ImageError


def encoded(kind: str, mode: str = "RGB", side: int = 600, **options) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (side, side)).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("PNG", "RGBA", {}),
        ("PNG", "I;16", {}),
        ("WEBP", "RGB", {}),
        ("TIFF", "F", {"compression": "tiff_deflate"}),
    ],
)
def test_what_needs_more_than_the_limit_is_refused_with_the_option(kind, mode, options, monkeypatch):
    data = encoded(kind, mode, **options)
    assert decode_image(data).size == (600, 600)
    monkeypatch.setenv(LIMIT_VARIABLE, "1")
    with pytest.raises(ImageError, match=rf"over the limit of 1 MiB; .*{LIMIT_VARIABLE}=\d+") as caught:
        decode_image(data, name="it")
    assert caught.value.kind == "too_large"
    wanted = str(caught.value).rpartition("=")[2].strip(".")
    monkeypatch.setenv(LIMIT_VARIABLE, wanted)
    assert decode_image(data).size == (600, 600)


def test_the_default_takes_a_jpeg_of_the_most_pixels_and_no_webp_of_as_many():
    with room_for(estimate("JPEG", "RGB", 2**27), "it", "a JPEG file"):
        pass
    with pytest.raises(ImageError), room_for(estimate("WEBP", "RGB", 2**27), "it", "a WebP file"):
        pass


def test_large_decodes_take_turns(monkeypatch):
    monkeypatch.setenv(LIMIT_VARIABLE, "4")
    inside, most = [0], [0]

    def decode(needed: int) -> None:
        with room_for(needed, "it", "a file"):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.02)
            inside[0] -= 1

    for needed, together in ((3 << 20, 1), (1 << 10, 4)):
        most[0] = 0
        threads = [threading.Thread(target=decode, args=(needed,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most[0] <= together


def test_levels_are_made_in_blocks():
    from inception.data.depth import levels

    values = np.linspace(-1, 1, 1000 * 8).reshape(1000, 8)
    assert levels(values)[0, 0] == 0
    assert levels(values)[-1, -1] == 255
    np.testing.assert_array_equal(levels(values[:300]), levels(values[:300].copy()))
