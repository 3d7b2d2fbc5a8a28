"""The engine's operations for one number of images: `Operation` of engine.h, filled in."""

import ctypes
import re
from pathlib import Path

from inception.errors import UnsupportedLayerError
from inception.runtime.native.layers import PIXELS, Layer
from inception.runtime.native.places import (
    Border,
    Layers,
    Layout,
    Shapes,
    ends_wide,
    half_products,
    row_values,
    slots_of,
    value_bytes,
    weight_spans,
)

HEADER = Path(__file__).with_name("engine.h")
_TYPES = {"int64_t": ctypes.c_int64, "double": ctypes.c_double}


_TEXT = re.sub(r"/\*.*?\*/", "", HEADER.read_text(encoding="utf-8"), flags=re.DOTALL)
KINDS = _TEXT.partition("enum {")[2].partition("}")[0].lower().replace(" ", "").replace("\n", "").split(",")
"""The kinds of operation, as engine.h numbers them."""


def _declared_fields() -> list[tuple[str, type]]:
    """The fields of `Operation` as engine.h declares them; `in` is `in_` here."""
    body = _TEXT.partition("typedef struct {")[2].partition("} Operation;")[0]
    return [
        ("in_" if name.strip() == "in" else name.strip(), _TYPES[kind])
        for kind, names in re.findall(r"(\w+)\s+([^;]+);", body)
        for name in names.split(",")
    ]


class Operation(ctypes.Structure):
    """`Operation` of engine.h."""

    _fields_ = _declared_fields()


class Program:
    """What the engine does for so many images at once with so many threads.

    Attributes:
        operations: in order.
        names: for each, the map it makes.
        layout: where everything lies.
        logits: the name of the last map.
        logits_half: whether that is bfloat16.
        logits_slots: its channels' places.
    """

    def __init__(
        self, layers: Layers, shapes: Shapes, *, images: int, threads: int, half: bool, centered: bool
    ) -> None:
        slots = slots_of(layers, shapes)
        self._images, self._half, self._last = images, half, layers[-1]
        self._spans, _ = weight_spans(layers, shapes, slots, half)
        self.layout = Layout(
            layers, shapes, slots, images=images, threads=threads, half=half, spans=self._spans
        )
        self.names: list[str] = []
        operations: list[Operation] = []
        for name, operation in [(PIXELS, self._pixels(centered))] + [
            (layer.output, self._operation(layer)) for layer in layers if layer.kind != "concat"
        ]:
            cleared = self.layout.cleared.get(name, [])
            operations += [self._border(root, border) for root, border in cleared]
            operations.append(operation)
            self.names += [*(f"{root}: border" for root, _ in cleared), name]
        self.operations = (Operation * len(operations))(*operations)
        self.logits = self._last.output
        self.logits_half = half and not ends_wide(self._last)
        self.logits_slots = slots[self.logits]

    def _target(self, kind: str, name: str) -> Operation:
        place = self.layout.places[name]
        _, height, width = place.shape
        return Operation(
            kind=KINDS.index(kind),
            half=self._half,
            images=self._images,
            height_out=height,
            width_out=width,
            blocks_out=self.layout.counts[name],
            out=place.start,
            out_image=place.image,
            out_block=place.block,
            out_row=place.row,
            other=-1,
        )

    def _pixels(self, centered: bool) -> Operation:
        operation, place = self._target("pixels", PIXELS), self.layout.places[PIXELS]
        operation.depth = place.pixel // value_bytes(self._half)
        operation.bias = 0 if centered else -1
        operation.channels = place.shape.channels
        return operation

    def _border(self, name: str, border: Border) -> Operation:
        operation = self._target("border", name)
        operation.top, operation.left, operation.bottom, operation.right = border
        operation.step = self.layout.places[name].pixel
        return operation

    def _operation(self, layer: Layer) -> Operation:
        kinds = {"convolution": "winograd" if layer.method != "direct" else "convolution"}
        kinds["global_average_pool"] = "average_pool"
        operation = self._target(kinds.get(layer.kind, layer.kind), layer.output)
        source = self.layout.places[layer.source]
        operation.blocks_in = self.layout.counts[layer.source]
        operation.in_, operation.in_image = source.start, source.image
        operation.in_block, operation.in_row = source.block, source.row
        operation.height_in, operation.width_in = source.shape[1:]
        operation.kernel_rows, operation.kernel_columns = layer.kernel
        operation.stride_rows, operation.stride_columns = layer.stride
        operation.relu = layer.relu
        if layer.kind == "convolution":
            self._convolve(operation, layer)
        elif layer.kind == "response_norm":
            operation.size, operation.square_root = layer.size, layer.beta == 0.5
            operation.alpha, operation.offset = layer.alpha, layer.offset
        elif layer.kind == "global_average_pool":
            operation.kernel_rows, operation.kernel_columns = source.shape[1:]
        else:
            operation.top, operation.left = layer.pads[:2]
            operation.counted = 1 + layer.pads[2] if layer.count_include_pad else 0
        return operation

    def _convolve(self, operation: Operation, layer: Layer) -> None:
        source, span = self.layout.places[layer.source], self._spans[layer.output]
        operation.weights, operation.bias = span.kernel, span.bias
        operation.in_ = source.corner(*layer.pads[:2])
        operation.by_rows = self.layout.by_rows[layer.output]
        operation.wide = self._half and layer is self._last and ends_wide(layer)
        operation.column, operation.depth = source.pixel, source.pixel // 4
        operation.step = source.pixel * layer.stride[1]
        if layer.source == PIXELS:
            # A row of the kernel is one run of interleaved values.
            operation.blocks_in, operation.kernel_columns = 1, 1
            operation.depth = (
                row_values(layer, source.shape.channels, self._half) * value_bytes(self._half) // 4
            )
        if operation.step not in ((12, 32, 64) if self._half else (24, 64, 128)):
            raise UnsupportedLayerError(f"a convolution of stride {layer.stride[1]}")
        if layer.added is not None:
            other = self.layout.places[layer.added]
            operation.other, operation.other_image = other.start, other.image
            operation.other_block, operation.other_row = other.block, other.row
        if layer.output in self.layout.tiles:
            self._cut(operation, layer)
        elif layer.kernel == (1, 1) and layer.stride == (1, 1) and not any(layer.pads):
            self._flatten(operation, layer)

    def _cut(self, operation: Operation, layer: Layer) -> None:
        tiles = self.layout.tiles[layer.output]
        operation.points_rows, operation.points_columns = tiles.points
        operation.size_rows, operation.size_columns = tiles.size
        operation.narrow = half_products(layer, self._half)
        operation.portions, operation.room = tiles.portions, self.layout.room_bytes
        operation.tile_rows, operation.tile_columns = tiles.rows, tiles.columns
        operation.transformed, operation.products = self.layout.room, tiles.products

    def _flatten(self, operation: Operation, layer: Layer) -> None:
        """Rows, or images of one pixel, that lie side by side everywhere, as the columns of one row."""
        names = [layer.source, layer.output] + ([] if layer.added is None else [layer.added])
        places = [self.layout.places[name] for name in names]
        height, width = places[0].shape[1:]
        if all(place.image == place.pixel for place in places):
            operation.images, operation.width_out = 1, self._images
        elif all(place.row == width * place.pixel for place in places):
            operation.height_out, operation.width_out = 1, height * width
