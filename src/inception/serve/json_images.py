"""Images in a JSON body, as base64: what clients of other servers send."""

import base64
import re
from typing import Any, NamedTuple

from inception.serve.json_bounds import parse_json
from inception.serve.settings import RequestError

TAKEN = 'send the image file as the body, files in a multipart form, or JSON {"image": "<base64>"}'
"""How images may be sent, as the end of a refusal."""

MAX_UNICODE_BYTES = 4 << 20
"""Largest JSON body with characters beyond ASCII: one of them may make each character take four bytes."""

_ONE = {"image", "img", "imagedata", "imagebytes", "imagebase64", "imageb64", "imageurl", "url"}
_ONE |= {"base64", "b64", "b64json", "content", "data", "bytes", "file", "body"}
_SEVERAL = {"images", "instances", "inputs"}
_NAMES = {"name", "filename", "path"}
_VALUES_AN_IMAGE = 32
_MAX_NAME_LENGTH = 255
_DATA_URL = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w.+-]+=[^;,]*)*(;base64)?,", re.IGNORECASE)
_URL = re.compile(r"(?:https?|ftp|file|s3|gs):", re.IGNORECASE)
_SPACE = b" \t\r\n\v\f"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_BLOCK = 4 << 20
"""So many characters are decoded at once, so that other threads have their turn."""


class JsonImage(NamedTuple):
    """One image of the body, and its name where the client gives one."""

    name: str | None
    data: bytes


def is_json(content_type: str, body: bytes) -> bool:
    """Whether a body is to be read as JSON, by how it begins or else by its announced type.

    By the type alone it would not do: curl announces a form unless told otherwise.
    """
    if body[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[", b'"'):
        return True
    kind = content_type.partition(";")[0].strip().lower()
    return (kind in ("application/json", "text/json") or kind.endswith("+json")) and body.isascii()


def json_images(body: bytes, max_images: int) -> list[JsonImage]:
    """The images of a JSON body: `{"image": …}`, or several in `images`, `instances`, `inputs` or a list.

    Each is base64 or a data URL with it, by itself or in an object (`{"b64": …}`), which may hold its name.
    Raises RequestError 400 or 413.
    """
    found = _several(_document(body, max_images))
    if not found:
        raise RequestError(400, "the request holds no image")
    if len(found) > max_images:
        raise RequestError(413, f"the request has more than {max_images} images")
    return [_image(value, None) for value in found]


def base64_bytes(text: str) -> bytes:
    """What base64 encodes, in the usual or the URL-safe alphabet, also broken into lines.

    Raises RequestError 400 for anything else.
    """
    try:
        return _decoded(text.encode("ascii").translate(None, _SPACE))
    except ValueError as error:  # also binascii.Error and UnicodeEncodeError
        raise RequestError(
            400, "the image is not valid base64: it is cut short, or holds characters that base64 has not"
        ) from error


def _decoded(characters: bytes) -> bytes:
    if b"+" not in characters and b"/" not in characters:
        characters = characters.translate(_URL_SAFE)
    if 0 <= characters.find(b"=") < len(characters) - 2:
        raise ValueError("padding in the middle")
    blocks = (characters[start : start + _BLOCK] for start in range(0, len(characters), _BLOCK))
    return b"".join(base64.b64decode(block, validate=True) for block in blocks)


def _document(body: bytes, max_images: int) -> Any:
    """The JSON, which may hold few values."""
    if len(body) > MAX_UNICODE_BYTES and not body.isascii():
        raise RequestError(413, f"JSON of more than {MAX_UNICODE_BYTES:,} bytes must be ASCII")
    most = _VALUES_AN_IMAGE * (max_images + 1)
    return parse_json(body, values=most, lists=most, texts=most, hint=f"; {TAKEN}")


def _several(document: Any) -> list[Any]:
    """The values that stand for an image each."""
    if isinstance(document, dict):
        keys = [key for key in document if _plain(key) in _SEVERAL]
        if len(keys) == 1:
            value = document[keys[0]]
            values = value if isinstance(value, list) else [value]
            _refuse_tensors(values)
            _refuse_others(document, set(keys))
            return values
    return document if isinstance(document, list) else [document]


def _image(value: Any, name: str | None, depth: int = 0) -> JsonImage:
    if isinstance(value, str):
        return JsonImage(name, base64_bytes(_without_prefix(value)))
    if not isinstance(value, dict) or depth > 2:
        raise RequestError(400, f"an image in JSON must be text in base64; {TAKEN}")
    keys = [key for key in value if _plain(key) in _ONE]
    names = [key for key in value if _plain(key) in _NAMES]
    if len(keys) != 1:
        held = f"has {len(value)} keys, and " if value else ""
        which = "more than one may hold the image" if keys else "none is called 'image'"
        raise RequestError(400, f"the JSON object {held}{which}; {TAKEN}")
    _refuse_others(value, {*keys, *names})
    if names and isinstance(value[names[0]], str):
        name = value[names[0]][:_MAX_NAME_LENGTH]
    return _image(value[keys[0]], name, depth + 1)


def _refuse_tensors(values: list[Any]) -> None:
    if any(isinstance(value, dict) and "datatype" in value for value in values):
        raise RequestError(400, "the Open Inference Protocol's requests go to /v2/models/{model}/infer")


def _refuse_others(document: dict[str, Any], used: set[str]) -> None:
    """An option that is not heeded is refused, as in the query."""
    if others := sorted(document.keys() - used):
        shown = ", ".join(map(repr, others[:5]))[:200]
        raise RequestError(400, f"the JSON has {shown} beside the image; options belong in the URL's query")


def _without_prefix(text: str) -> str:
    start = text[:1024].lstrip()
    if _URL.match(start):
        raise RequestError(400, f"URLs are not fetched; {TAKEN}")
    if not start[:5].lower().startswith("data:"):
        return text
    found = _DATA_URL.match(start)
    if found is None or not found[1]:
        raise RequestError(400, "the data URL holds no base64; it begins as data:image/png;base64,")
    return text.lstrip()[found.end() :]


def _plain(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")
