"""The Open Inference Protocol, version 2: requests and answers in JSON and in its binary extension.

A model has one input, `images`: either UINT8 N x C x H x W, as `Preprocess.apply` makes them, or BYTES N,
encoded image files that the server preprocesses. Its outputs are `probabilities` and `logits`, FP32, N x
classes.
Source: https://github.com/kserve/open-inference-protocol, and the binary tensor data extension.
"""

import json
import math
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inception.serve.json_bounds import parse_json
from inception.serve.json_images import base64_bytes
from inception.serve.settings import RequestError, Settings

INPUT, OUTPUTS = "images", ("probabilities", "logits")
LENGTH_HEADER = "inference-header-content-length"
_LENGTH = struct.Struct("<I")
_PIECE = 10_000
_OTHER_VALUES = 256
"""Values of a request beside its pixels or images."""


@dataclass(frozen=True)
class InferRequest:
    """A checked request.

    Attributes:
        id: what the client calls it, or None.
        form: `pixels` or `file`, as in `answers.Ask`.
        images: one payload an image.
        outputs: names of the outputs wanted, in order.
        binary: those among them to be sent as raw bytes.
    """

    id: str | None
    form: str
    images: tuple[bytes, ...]
    outputs: tuple[str, ...]
    binary: frozenset[str]


def parse_request(
    body: bytes, header_length: str | None, shape: Sequence[int], settings: Settings
) -> InferRequest:
    """Read the body of an infer request for a model whose images have `shape` (C, H, W).

    Raises RequestError 400 or 413.
    """
    document, raw = _split(body, header_length, shape, settings)
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise RequestError(400, f"inputs must be a list of one input, {INPUT!r}")
    source: dict[str, Any] = inputs[0]
    if source.get("name") != INPUT:
        raise RequestError(400, f"the model's input is {INPUT!r}, not {source.get('name')!r}"[:200])
    dimensions = _dimensions(source.get("shape"))
    if not dimensions or dimensions[0] == 0:
        raise RequestError(400, "the request holds no image")
    if dimensions[0] > settings.max_images:
        raise RequestError(413, f"the request has more than {settings.max_images} images")
    content = _binary_part(source, raw)
    form, images = _images(source, dimensions, content, shape)
    outputs, binary = _outputs(document)
    identity = document.get("id")
    if identity is not None and not isinstance(identity, str):
        raise RequestError(400, "id must be text")
    return InferRequest(identity, form, images, outputs, binary)


def json_bytes(body: bytes, header_length: str | None) -> int:
    """About how much of a body has to be parsed: its JSON, and little of what follows."""
    if header_length is None or not header_length.isdecimal() or len(header_length) > 12:
        return len(body)
    return min(int(header_length), len(body)) + len(body) // 16


def _split(
    body: bytes, header_length: str | None, shape: Sequence[int], settings: Settings
) -> tuple[dict[str, Any], bytes]:
    length = len(body)
    if header_length is not None:
        if not header_length.isdecimal() or len(header_length) > 12 or int(header_length) > len(body):
            raise RequestError(
                400, "Inference-Header-Content-Length must be the number of bytes of the JSON part"
            )
        length = int(header_length)
    if length > settings.max_json_bytes:
        raise RequestError(
            413,
            f"the JSON part is over the limit of {settings.max_json_bytes:,} bytes; send binary tensors",
        )
    images = settings.max_images
    lists = images * (1 + shape[0] * (1 + shape[1])) + _OTHER_VALUES
    document = parse_json(
        body[:length],
        values=images * math.prod(shape) + lists + _OTHER_VALUES,
        lists=lists,
        texts=images + _OTHER_VALUES,
    )
    if not isinstance(document, dict):
        raise RequestError(400, "the request must be a JSON object")
    return document, body[length:]


def _dimensions(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 8 or not all(type(n) is int and n >= 0 for n in value):
        raise RequestError(400, "shape must be a list of whole numbers")
    return tuple(value)


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    value = holder.get("parameters", {})
    if not isinstance(value, dict):
        raise RequestError(400, "parameters must be an object")
    return value


def _binary_part(source: dict[str, Any], raw: bytes) -> bytes | None:
    size = _parameters(source).get("binary_data_size")
    if (size is None) == ("data" not in source):
        raise RequestError(400, "an input has either data, or binary_data_size and the extension's header")
    if (0 if size is None else size) != len(raw) or isinstance(size, bool):
        raise RequestError(400, "binary_data_size does not match the bytes behind the JSON part")
    return None if size is None else raw


def _images(
    source: dict[str, Any], dimensions: tuple[int, ...], raw: bytes | None, shape: Sequence[int]
) -> tuple[str, tuple[bytes, ...]]:
    datatype = source.get("datatype")
    if datatype == "UINT8":
        if dimensions[1:] != tuple(shape):
            wanted = " x ".join(map(str, shape))
            raise RequestError(400, f"the shape of UINT8 images is N x {wanted}")
        size = math.prod(shape)
        data = raw if raw is not None else _bytes(source["data"], size * dimensions[0])
        if len(data) != size * dimensions[0]:
            raise RequestError(400, f"the data has {len(data)} values, the shape {size * dimensions[0]}")
        return "pixels", tuple(data[start : start + size] for start in range(0, len(data), size))
    if datatype == "BYTES":
        if len(dimensions) != 1:
            raise RequestError(400, "the shape of BYTES images is [N]")
        count = dimensions[0]
        files = _counted(raw, count) if raw is not None else _base64(source["data"], count)
        if len(files) != dimensions[0]:
            raise RequestError(400, f"the data has {len(files)} images, the shape {dimensions[0]}")
        return "file", tuple(files)
    raise RequestError(400, "datatype must be UINT8 (pixels) or BYTES (encoded images)")


def _bytes(data: Any, expected: int) -> bytes:
    flat: list[Any] = []
    _flatten(data, flat, expected, depth=0)
    if len(flat) != expected:
        raise RequestError(400, f"the data has {len(flat)} values, the shape {expected}")
    try:
        return bytes(flat)
    except (TypeError, ValueError) as error:
        raise RequestError(400, "UINT8 data must be whole numbers in 0..255") from error


def _flatten(value: Any, flat: list[Any], most: int, depth: int) -> None:
    if not isinstance(value, list) or depth > 4:
        raise RequestError(400, "data must be a list, flat or nested as the shape says")
    if value and isinstance(value[0], list):
        for inner in value:
            _flatten(inner, flat, most, depth + 1)
    else:
        flat.extend(value)
    if len(flat) > most:
        raise RequestError(400, f"the data has more than the {most} values of the shape")


def _base64(data: Any, most: int) -> list[bytes]:
    if not isinstance(data, list) or not all(isinstance(text, str) for text in data):
        raise RequestError(400, "BYTES data in JSON must be a list of base64 texts")
    if len(data) > most:
        raise _too_many(most)
    return [base64_bytes(text) for text in data]


def _too_many(most: int) -> RequestError:
    return RequestError(400, f"the data has more images than the shape, which has {most}")


def _counted(raw: bytes, most: int) -> list[bytes]:
    """Elements of binary BYTES data: each a length of four bytes, little-endian, and as many bytes."""
    files: list[bytes] = []
    position = 0
    while position < len(raw):
        if len(files) == most:
            raise _too_many(most)
        if position + _LENGTH.size > len(raw):
            raise RequestError(400, "the binary BYTES data is cut short")
        (length,) = _LENGTH.unpack_from(raw, position)
        position += _LENGTH.size
        if position + length > len(raw):
            raise RequestError(400, "the binary BYTES data is cut short")
        files.append(raw[position : position + length])
        position += length
    return files


def _outputs(document: dict[str, Any]) -> tuple[tuple[str, ...], frozenset[str]]:
    wanted = document.get("outputs")
    everything = bool(_parameters(document).get("binary_data_output", False))
    if wanted is None:
        return OUTPUTS, frozenset(OUTPUTS if everything else ())
    if not isinstance(wanted, list) or not all(isinstance(output, dict) for output in wanted):
        raise RequestError(400, "outputs must be a list of objects")
    names = tuple(output.get("name") for output in wanted)
    if not names or len(set(map(repr, names))) != len(names) or not all(name in OUTPUTS for name in names):
        raise RequestError(400, f"the model's outputs are {' and '.join(OUTPUTS)}")
    binary = {output["name"] for output in wanted if _parameters(output).get("binary_data", everything)}
    return names, frozenset(binary)


def encode_answer(
    request: InferRequest, model: str, version: str, rows: Sequence[bytes]
) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON part when binary data follows it.

    Args:
        request: what was asked.
        model: its name.
        version: its version.
        rows: for each image its FP32 rows, one after the other in the order of `request.outputs`.
    """
    outputs, payloads = [], []
    width = len(rows[0]) // len(request.outputs)
    for position, name in enumerate(request.outputs):
        data = b"".join(row[position * width : (position + 1) * width] for row in rows)
        output: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": [len(rows), width // 4]}
        if name in request.binary:
            output["parameters"] = {"binary_data_size": len(data)}
            payloads.append(data)
            outputs.append(json.dumps(output))
        else:
            outputs.append(f'{json.dumps(output)[:-1]}, "data": [{_numbers(data)}]}}')
    document = {"model_name": model, "model_version": version}
    if request.id is not None:
        document["id"] = request.id
    text = f'{json.dumps(document, ensure_ascii=False)[:-1]}, "outputs": [{", ".join(outputs)}]}}'
    head = text.encode(errors="replace")
    return b"".join((head, *payloads)), len(head) if payloads else None


def _numbers(data: bytes) -> str:
    """FP32 as JSON, written in pieces, so that other threads have their turn."""
    values = array("f", data)
    pieces = (values[start : start + _PIECE].tolist() for start in range(0, len(values), _PIECE))
    return ", ".join(json.dumps(piece, allow_nan=False)[1:-1] for piece in pieces)


def describe_model(name: str, versions: Sequence[str], facts: dict[str, Any]) -> dict[str, Any]:
    """Model metadata as the protocol has it; what follows `outputs` is added."""
    classes = len(facts["labels"])
    return {
        "name": name,
        "versions": list(versions),
        "platform": "inception_pytorch",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, *facts["shape"]]}],
        "outputs": [{"name": output, "datatype": "FP32", "shape": [-1, classes]} for output in OUTPUTS],
        "labels": facts["labels"],
        "auxiliary_heads": facts["heads"],
        "explain_methods": facts["explain"],
    }
