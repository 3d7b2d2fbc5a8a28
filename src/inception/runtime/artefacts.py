"""A plan's networks for other engines, checked before the engine reads them: a bundle is not trusted.

Both formats can name files outside the bundle, whose bytes would then come out as answers, and hold loops and
operators that no classifier needs. What is accepted is what `optimize` writes, and nothing else.

Source of the message layouts: onnx/onnx.proto.
"""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from inception.errors import BundleError
from inception.weights.formats import wire

_LAYERS = (
    "Conv",
    "Gemm",
    "MatMul",
    "BatchNormalization",
    "LRN",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
)
_NUMBERS = ("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Relu", "Tanh", "Softmax")
_SHAPES = ("Cast", "Concat", "Flatten", "Identity", "Pad", "Slice", "SpaceToDepth")
OPERATORS = frozenset((*_LAYERS, *_NUMBERS, *_SHAPES))
"""What `onnx_graph` writes. None holds a graph of its own or reads a file."""
MODEL_FIELDS, GRAPH_FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14}, {1, 2, 5, 10, 11, 12, 13, 16}
NODE_FIELDS, ATTRIBUTE_FIELDS = {1, 2, 3, 4, 5, 6, 7, 9}, {1, 2, 3, 4, 7, 8, 13, 20}
TENSOR_FIELDS = {1, 2, 4, 5, 7, 8, 9, 10, 12, 16}
EXTERNAL_DATA, DATA_LOCATION = 13, 14
XML_LIMIT_BYTES = 32 << 20
"""The largest network here has 3 MB."""
_NUMBER = re.compile(r"\d{1,15}")
Fields = Iterator[tuple[int, wire.Value]]


def check_onnx(model: bytes) -> None:
    """Raise BundleError for an ONNX file that needs another file, or that this version would not write."""
    try:
        _check_model(model)
    except (ValueError, LookupError) as error:
        raise _refused("model.onnx", error) from error


def check_openvino(xml: bytes, weights: int) -> None:
    """Raise BundleError unless `xml` is an OpenVINO network whose constants all lie in its `weights` bytes.

    OpenVINO tells formats apart by content: an ONNX file of this name would be read as such.
    """
    try:
        _check_xml(xml, weights)
    except (ValueError, ElementTree.ParseError, LookupError) as error:
        raise _refused("model.xml", error) from error


def _check_model(model: bytes) -> None:
    graphs = [value for number, value in _known(model, MODEL_FIELDS, "a model") if number == 7]
    if not graphs:
        raise ValueError("it has no graph")
    for graph in graphs:
        for number, value in _known(graph, GRAPH_FIELDS, "a graph"):
            if number == 1:
                _check_node(value)
            elif number == 5:
                _check_tensor(value)


def _refused(name: str, reason: object) -> BundleError:
    return BundleError(
        f"runtime/{name} is not a network that optimize writes ({reason!s:.120}); optimise the bundle again"
    )


def _outside(name: str, file: str) -> BundleError:
    return BundleError(
        f"runtime/{name} takes its weights from another file ({file!r:.80}), and a bundle holds all of its "
        "own: do not trust it"
    )


def _known(message: wire.Value | bytes, fields: set[int], what: str) -> Fields:
    data = memoryview(message) if isinstance(message, bytes) else wire.as_bytes(message)
    for number, value in wire.fields(data):
        if number not in fields:
            raise ValueError(f"{what} has the field {number}")
        yield number, value


def _check_node(message: wire.Value) -> None:
    operator = domain = ""
    for number, value in _known(message, NODE_FIELDS, "a node"):
        if number == 4:
            operator = wire.as_text(value)
        elif number == 7:
            domain = wire.as_text(value)
        elif number == 5:
            for _ in _known(value, ATTRIBUTE_FIELDS, f"an attribute of {operator or 'a node'}"):
                pass
    if operator not in OPERATORS or domain:
        raise ValueError(f"it has the operator {'.'.join(filter(None, (domain, operator)))!r:.60}")


def _check_tensor(message: wire.Value) -> None:
    external, texts = False, []
    for number, value in _known(message, TENSOR_FIELDS | {EXTERNAL_DATA, DATA_LOCATION}, "a tensor"):
        if number == EXTERNAL_DATA:  # pairs of texts: location, offset, length
            texts += [wire.as_text(part) for _, part in wire.fields(wire.as_bytes(value))]
        external |= number in (EXTERNAL_DATA, DATA_LOCATION)
    if external:
        raise _outside("model.onnx", dict(zip(texts[::2], texts[1::2], strict=False)).get("location", ""))


def _check_xml(xml: bytes, weights: int) -> None:
    if len(xml) > XML_LIMIT_BYTES:
        raise ValueError(f"it has {len(xml)} bytes, more than {XML_LIMIT_BYTES}")
    text = xml.decode("utf-8")  # in no other encoding, which could hide declarations
    if "<!" in text.replace("<!--", ""):
        raise ValueError("it has declarations")
    root = ElementTree.fromstring(text)
    if root.tag != "net":
        raise ValueError("it is no network")
    for element in root.iter():
        if element.tag == "body":
            raise ValueError("it has a network within")
        _check_place(element, weights)


def _check_place(element: ElementTree.Element, weights: int) -> None:
    for key, value in element.attrib.items():
        if key.lower() in ("path", "location", "file", "filename"):
            raise _outside("model.xml", value)
    if element.get("element_type") == "string":
        raise ValueError("it has texts among its constants")
    offset, size = element.get("offset"), element.get("size")
    if element.tag != "data" or offset is None:
        return
    if not (_NUMBER.fullmatch(offset) and size is not None and _NUMBER.fullmatch(size)):
        raise ValueError("a constant has no place")
    if int(offset) + int(size) > weights:
        raise ValueError("a constant reaches beyond model.bin")
