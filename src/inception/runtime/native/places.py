"""Where the maps of a network lie in the engine's memory: borders, concatenations, and who may share."""

import math
from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from inception.errors import UnsupportedLayerError
from inception.runtime.native.layers import LANES, PIXELS, Layer, Shape
from inception.runtime.native.packing import blocks_of

ALIGNMENT = 64
PORTION_BYTES = 1 << 20
"""Room of a thread for transformed tiles: so many are taken at a time as stay in its cache."""
KERNEL_TO_MAP = 12
"""Threads share the rows of a map where the kernel has at most so many times its bytes; each then reads the
whole kernel, and keeps to the rows that it wrote itself. Else they share the channels."""
Layers = tuple[Layer, ...]
Shapes = dict[str, Shape]
Slots = dict[str, list[int]]
Piece = tuple[int, int, int, str]
"""Bytes, the first and the last step at which they are needed, and a name."""


@dataclass(frozen=True)
class Place:
    """One map in the arena: strides in bytes, `start` within the border."""

    shape: Shape
    start: int
    image: int
    block: int
    row: int
    pixel: int

    def corner(self, top: int, left: int) -> int:
        """Where a window begins that reaches so far into the border."""
        return self.start - top * self.row - left * self.pixel


class Border(NamedTuple):
    """Zeros around a map."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    def joined(self, other: "Border") -> "Border":
        """A border that holds both."""
        return Border(*map(max, self, other))


class Tiles(NamedTuple):
    """How minimal filtering cuts a map.

    Attributes:
        points, size: inputs and outputs of a tile in rows and columns.
        rows, columns: of tiles in an image.
        portions: shares of the tiles that a thread computes from beginning to end.
        products: where the products lie in a thread's room.
        room: bytes of a thread.
        rooms: how many there are.
    """

    points: tuple[int, int]
    size: tuple[int, int]
    rows: int
    columns: int
    portions: int
    products: int
    room: int
    rooms: int


def value_bytes(half: bool) -> int:
    """Of one number."""
    return 2 if half else 4


def aligned(size: int) -> int:
    """The next whole cache line."""
    return -(size // -ALIGNMENT) * ALIGNMENT


def pixel_depth(layer: Layer, channels: int, half: bool) -> int:
    """Interleaved values of a pixel for the convolution that reads the images."""
    supported = 12 if half else 24
    return channels if channels * value_bytes(half) * layer.stride[1] == supported else LANES


def row_values(layer: Layer, channels: int, half: bool) -> int:
    """Values of a row of that convolution's kernel: an even number where pairs are multiplied."""
    values = layer.kernel[1] * pixel_depth(layer, channels, half)
    return values + values % 2 if half else values


def tile_points(layer: Layer) -> tuple[int, int]:
    """Inputs of a tile in rows and columns, which are also its products."""
    (height, width), (rows, columns) = layer.tile(), layer.kernel
    return height + rows - 1, width + columns - 1


def half_products(layer: Layer, half: bool) -> bool:
    """Whether a convolution multiplies bfloat16: not in the larger tiles, which would lose too much."""
    return half and (layer.method == "direct" or max(tile_points(layer)) <= 4)


def ends_wide(last: Layer) -> bool:
    """Whether the last map is float32 in a bfloat16 program too."""
    return last.kind == "convolution" and last.added is None


def slots_of(layers: Layers, shapes: Shapes) -> Slots:
    """For each map, the place of each channel: parts of a concat begin at whole blocks.

    A convolution to which a map is added puts its channels where that map has them.
    """
    slots = {PIXELS: list(range(shapes[PIXELS].channels))}
    for layer in layers:
        if layer.kind == "convolution":
            found = list(range(layer.channels)) if layer.added is None else slots[layer.added]
        elif layer.kind == "concat":
            found, start = [], 0
            for name in layer.inputs:
                found += [start + slot for slot in slots[name]]
                start += blocks_of(slots[name]) * LANES
        else:
            found = slots[layer.source]
        gaps = found != list(range(len(found)))
        if gaps and layer.kind == "response_norm":
            raise UnsupportedLayerError("a response norm over parts of channels that are no multiples of 16")
        slots[layer.output] = found
    return slots


class Span(NamedTuple):
    """A convolution's kernel and bias among the weights: where, and how many bytes."""

    kernel: int
    kernel_bytes: int
    bias: int
    bias_bytes: int


def weight_spans(layers: Layers, shapes: Shapes, slots: Slots, half: bool) -> tuple[dict[str, Span], int]:
    """Where each convolution's kernel and bias lie, by its output's name, and the bytes of all weights."""
    spans, end = {}, ALIGNMENT  # the first bytes are the images' centre
    for layer in layers:
        if layer.kind != "convolution":
            continue
        outputs, inputs = (blocks_of(slots[name]) * LANES for name in (layer.output, layer.source))
        values = inputs * math.prod(layer.kernel)
        if layer.source == PIXELS:
            values = layer.kernel[0] * row_values(layer, shapes[PIXELS].channels, half)
        elif layer.method != "direct":
            values = inputs * math.prod(tile_points(layer))
        kernel_bytes = values * outputs * value_bytes(half_products(layer, half))
        bias = aligned(end + kernel_bytes)
        spans[layer.output] = Span(end, kernel_bytes, bias, 4 * outputs)
        end = aligned(bias + 4 * outputs)
    return spans, end


class Layout:
    """Where everything lies for one number of images.

    Attributes:
        places: of each map.
        counts: blocks of 16 channels of each map.
        by_rows: whether threads share the rows of a convolution's outputs.
        tiles: of the convolutions by minimal filtering.
        room, room_bytes: where their transformed tiles lie; of one thread.
        cleared: layer -> the map whose border must be cleared before it, and that border.
        size: bytes of the arena.
    """

    def __init__(
        self,
        layers: Layers,
        shapes: Shapes,
        slots: Slots,
        *,
        images: int,
        threads: int,
        half: bool,
        spans: dict[str, Span],
    ) -> None:
        self._layers, self._shapes, self._half = layers, shapes, half
        self._images, self._threads = images, threads
        self.counts = {name: blocks_of(found) for name, found in slots.items()}
        self._parents = self._joined()
        self._borders = self._needed_borders()
        self.by_rows = {
            layer.output: spans[layer.output].kernel_bytes <= KERNEL_TO_MAP * self._map_bytes(layer.source)
            for layer in layers
            if layer.kind == "convolution"
        }
        self.tiles = {layer.output: self._tiles(layer) for layer in layers if layer.method != "direct"}
        wholes = {name: self._place(name) for name in shapes if name not in self._parents}
        self.room_bytes = max((tiles.room for tiles in self.tiles.values() if tiles.rooms > 1), default=0)
        starts, self.room = self._starts(wholes)
        shared = max((tiles.room for tiles in self.tiles.values()), default=0)
        self.size = self.room + max(self._threads * self.room_bytes, shared)
        self.places = {name: self._within(name, wholes, starts) for name in shapes}
        self.cleared = self._cleared()

    def _joined(self) -> dict[str, tuple[str, int]]:
        """Part of a concat -> the concat, and the block at which it begins there."""
        parents: dict[str, tuple[str, int]] = {}
        for layer in self._layers:
            start = 0
            for name in layer.inputs if layer.kind == "concat" else ():
                if name in parents or name == PIXELS:
                    raise UnsupportedLayerError(f"the map {name} in two concatenations")
                parents[name] = (layer.output, start)
                start += self.counts[name]
        return parents

    def _root(self, name: str) -> tuple[str, int]:
        start = 0
        while name in self._parents:
            name, offset = self._parents[name]
            start += offset
        return name, start

    def _needed_borders(self) -> dict[str, Border]:
        borders: dict[str, Border] = {}
        for layer in self._layers:
            if layer.kind == "convolution":
                root = self._root(layer.source)[0]
                borders[root] = borders.get(root, Border()).joined(self._read_outside(layer))
        return borders

    def _read_outside(self, layer: Layer) -> Border:
        (_, height, width), out = self._shapes[layer.source], self._shapes[layer.output]
        top, left = layer.pads[:2]
        sizes = layer.tile()
        # Tiles reach beyond the last output.
        ends = [-(side // -size) * size for side, size in zip(out[1:], sizes, strict=True)]
        down, right = (
            (end - 1) * stride + kernel
            for end, stride, kernel in zip(ends, layer.stride, layer.kernel, strict=True)
        )
        if layer.source == PIXELS and self._half:
            right += 1  # the last pair of a row may reach into the next pixel
        return Border(top, left, max(down - height - top, 0), max(right - width - left, 0))

    def _tiles(self, layer: Layer) -> Tiles:
        (_, height, width), size, points = self._shapes[layer.output], layer.tile(), tile_points(layer)
        rows, columns = -(height // -size[0]), -(width // -size[1])
        each = math.prod(points) * LANES * 4
        inputs, outputs = each * self.counts[layer.source], each * self.counts[layer.output]
        total, portions, rooms = rows * columns * self._images, 1, 1
        if self.by_rows[layer.output]:
            rooms = self._threads
            portions = -(total // -max(PORTION_BYTES // (inputs + outputs), 1))
            portions = min(-(portions // -rooms) * rooms, total)
        count = -(total // -portions)
        products = aligned(count * inputs)
        return Tiles(
            points, size, rows, columns, portions, products, products + aligned(count * outputs), rooms
        )

    def _map_bytes(self, name: str) -> int:
        return math.prod(self._shapes[name]) * value_bytes(self._half) * self._images

    def _place(self, name: str) -> Place:
        """As if the arena began with it."""
        shape, last, border = self._shapes[name], self._layers[-1], self._borders.get(name, Border())
        values = LANES
        if name == PIXELS:
            values = pixel_depth(self._reader_of_pixels(), shape.channels, self._half)
        wide = name == last.output and ends_wide(last)
        pixel = values * (4 if wide else value_bytes(self._half))
        row = pixel * (shape.width + border.left + border.right)
        block = row * (shape.height + border.top + border.bottom)
        image = block * self.counts[name]
        if block == pixel and name != PIXELS:  # images side by side can be taken as the columns of one
            image, block = pixel, pixel * self._images
        return Place(shape, border.top * row + border.left * pixel, image, block, row, pixel)

    def _bytes(self, name: str, place: Place) -> int:
        whole = place.block * self.counts[name]
        return aligned(whole if place.image < place.block else whole * self._images)

    def _reader_of_pixels(self) -> Layer:
        readers = [layer for layer in self._layers if PIXELS in (*layer.inputs, layer.added)]
        if len(readers) != 1 or readers[0].kind != "convolution":
            raise UnsupportedLayerError("images that something other than one convolution reads")
        return readers[0]

    def _starts(self, wholes: dict[str, Place]) -> tuple[dict[str, int], int]:
        """Where maps begin, and where all end; maps needed at different times may share a place.

        Where threads share a map's rows, only maps with planes of one size share: each thread then finds in
        its cache what it wrote there before, and not what another did.
        """
        lives = self._lives()
        pieces: dict[int, list[Piece]] = {}
        for name, whole in wholes.items():
            kind = whole.block if self._threads > 1 else 0
            pieces.setdefault(kind, []).append((self._bytes(name, whole), *lives[name], name))
        starts: dict[str, int] = {}
        end = 0
        for group in pieces.values():
            found, size = packed(group)
            starts |= {name: end + start for name, start in found.items()}
            end += size
        return starts, end

    def _lives(self) -> dict[str, tuple[int, int]]:
        """The first and the last step at which each map is needed, parts of a concat within the whole."""
        lives = {PIXELS: (-1, 0)}
        for step, layer in enumerate(self._layers):
            for name in (*layer.inputs, layer.added, layer.output):
                if name is not None:
                    root = self._root(name)[0]
                    lives[root] = (lives.get(root, (step, step))[0], step)
        last = self._root(self._layers[-1].output)[0]
        lives[last] = (lives[last][0], len(self._layers))
        return lives

    def _within(self, name: str, wholes: dict[str, Place], starts: dict[str, int]) -> Place:
        root, block = self._root(name)
        whole = wholes[root]
        start = starts[root] + whole.start + block * whole.block
        return replace(whole, shape=self._shapes[name], start=start)

    def _cleared(self) -> dict[str, list[tuple[str, Border]]]:
        """By the output of the first layer that writes into the map; PIXELS for the images."""
        found: dict[str, list[tuple[str, Border]]] = {}
        for root, border in self._borders.items():
            if any(border):
                writers = [layer.output for layer in self._layers if layer.kind != "concat"]
                first = next((name for name in writers if self._root(name)[0] == root), PIXELS)
                found.setdefault(first, []).append((root, border))
        return found


def packed(wanted: Iterable[Piece]) -> tuple[dict[str, int], int]:
    """Starts of pieces (bytes, first step, last step, name), the largest placed first, and the size of all.

    Pieces needed at the same step never overlap.
    """
    placed: list[tuple[int, int, int, int]] = []
    starts: dict[str, int] = {}
    for size, first, last, name in sorted(wanted, key=lambda piece: (-piece[0], piece[3])):
        start = 0
        for begin, end, other_first, other_last in placed:
            if other_first <= last and first <= other_last and begin < start + size and start < end:
                start = end
        insort(placed, (start, start + size, first, last))
        starts[name] = start
    return starts, max(end for _, end, _, _ in placed)
