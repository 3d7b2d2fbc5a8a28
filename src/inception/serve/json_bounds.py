"""JSON of strangers, parsed once it is known to hold few values: objects take many times their text."""

import json
from typing import Any

from inception.serve.settings import RequestError

MAX_DEPTH = 16
_MAX_FRACTIONS = 64
_BRACKETS = b"[]{}"
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))


def parse_json(body: bytes, *, values: int, lists: int, texts: int, hint: str = "") -> Any:
    """The JSON of a body that holds no more than so many values, lists and objects, and texts.

    What it holds is counted in its outline, without building anything. Nesting is bounded too, and so are
    numbers with a fraction, which no request has many of.

    Args:
        body: UTF-8, with or without a mark of byte order.
        values: most values in all.
        lists: most lists and objects.
        texts: most texts, keys of objects included.
        hint: the end of a refusal, which says what to do.

    Raises:
        RequestError: 400, also for what is no JSON.
    """
    outline = _outline(body, texts, hint)
    opened = outline.count(b"[") + outline.count(b"{")
    count = outline.count(b",") + opened
    if opened > lists or count > values:
        raise RequestError(400, f"the JSON holds {count:,} values, more than its images can have{hint}")
    if sum(outline.count(sign) for sign in (b".", b"e", b"E")) > _MAX_FRACTIONS:
        raise RequestError(400, f"the JSON holds many numbers that are not whole{hint}")
    if _depth(outline) > MAX_DEPTH:
        raise RequestError(400, f"the JSON is nested more than {MAX_DEPTH} deep{hint}")
    try:
        return json.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the request is not JSON{hint}") from error


def _outline(body: bytes, texts: int, hint: str) -> bytes:
    """The body with what stands in its texts left out."""
    if body.count(b'"') > 4 * texts:  # two a text, and as many escaped within
        raise RequestError(400, f"the JSON holds more than {texts:,} texts{hint}")
    pieces, start = [], 0
    while (opening := body.find(b'"', start)) >= 0:
        pieces.append(body[start:opening])
        start = _end_of_text(body, opening + 1)
    pieces.append(body[start:])
    return b'""'.join(pieces)


def _end_of_text(body: bytes, start: int) -> int:
    """Where the text that begins at `start` has ended, behind its quotation mark."""
    while (end := body.find(b'"', start)) >= 0:
        before = body[start:end]
        if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
            return end + 1
        start = end + 1
    return len(body)


def _depth(outline: bytes) -> int:
    depth = deepest = 0
    for sign in outline.translate(None, _ALL_BUT_BRACKETS):
        depth += 1 if sign in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
