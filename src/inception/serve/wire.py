"""Messages between the server and an inference process: JSON, then raw bytes. Nothing is ever unpickled.

A message is the length of its JSON (4 bytes, little-endian), the JSON, and the payloads whose sizes the JSON
gives as `sizes`.
"""

import asyncio
import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

_LENGTH = struct.Struct("<I")
Message = dict[str, Any]


def pack(message: Message, payloads: Sequence[bytes] = ()) -> bytes:
    """One message as bytes."""
    sizes = [len(payload) for payload in payloads]
    head = json.dumps({**message, "sizes": sizes}, allow_nan=False).encode()
    return b"".join((_LENGTH.pack(len(head)), head, *payloads))


async def receive(reader: asyncio.StreamReader) -> tuple[Message, list[bytes]]:
    """The next message. Raises asyncio.IncompleteReadError when the other side has gone."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    message: Message = json.loads(await reader.readexactly(length))
    return message, [await reader.readexactly(size) for size in message["sizes"]]


def receive_blocking(stream: BinaryIO) -> tuple[Message, list[bytes]] | None:
    """The next message, or None when the other side has gone."""
    prefix = stream.read(_LENGTH.size)
    if len(prefix) < _LENGTH.size:
        return None
    head = stream.read(_LENGTH.unpack(prefix)[0])
    try:
        message: Message = json.loads(head)
    except ValueError:  # cut short: the other side has gone
        return None
    payloads = [stream.read(size) for size in message["sizes"]]
    complete = all(len(payload) == size for payload, size in zip(payloads, message["sizes"], strict=True))
    return (message, payloads) if complete else None
