"""Request bodies, read within limits: every limit holds before the memory it protects is taken."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from inception.serve.json_images import is_json, json_images
from inception.serve.settings import RequestError, Settings, unavailable

MAX_PART_HEADERS, MAX_PART_HEADER_BYTES, MAX_NAME_LENGTH = 8, 2048, 255


@dataclass(frozen=True)
class Upload:
    """One image file of a request; `name` is what the client called it, None for a bare body."""

    name: str | None
    data: bytes


class ClientGoneError(Exception):
    """The client closed the connection; nobody waits for an answer."""


class BodyReader:
    """Reads bodies of all requests within one budget of memory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._held = 0

    async def read(self, request: Request, use: "Lease", limit: int | None = None) -> bytes:
        """The whole body. It counts against the budget until `use` ends.

        Raises RequestError (413 over the limit, 408 too slow, 503 over the budget) and ClientGoneError.
        """
        limit = self._settings.max_body_bytes if limit is None else limit
        too_large = RequestError(413, f"the request body is over the limit of {limit:,} bytes")
        announced = request.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                while True:
                    message = await request.receive()
                    if message["type"] != "http.request":
                        raise ClientGoneError
                    chunk = message.get("body", b"")
                    if len(body) + len(chunk) > limit:
                        raise too_large
                    use.take(len(chunk))
                    body += chunk
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError as error:
            raise RequestError(
                408, "the request body did not arrive in time", {"Connection": "close"}
            ) from error

    def lease(self) -> "Lease":
        """A share of the budget, as a context; it starts empty."""
        return Lease(self)

    def take(self, count: int) -> None:
        """Count bytes against the budget. Raises a 503 RequestError when it is spent."""
        if self._held + count > self._settings.max_buffered_bytes:
            raise unavailable("the server is busy: too much data is being received; try again later")
        self._held += count

    def give_back(self, count: int) -> None:
        """Undo `take`."""
        self._held -= count


class Lease:
    """Bytes held by one request."""

    def __init__(self, reader: BodyReader) -> None:
        self._reader, self._held = reader, 0

    def take(self, count: int) -> None:
        """Hold `count` bytes more."""
        self._reader.take(count)
        self._held += count

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *exception: object) -> None:
        self._reader.give_back(self._held)


def uploads(content_type: str, body: bytes, max_images: int) -> list[Upload]:
    """The image files of a body: the parts of multipart/form-data, those in JSON, else the body itself.

    Raises RequestError for what is no form, holds other fields than files, no file or too many.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        if is_json(content_type, body):
            return [Upload(*image) for image in json_images(body, max_images)]
        return [Upload(None, body)]
    boundary = options.get(b"boundary")
    if not boundary:
        raise RequestError(400, "the multipart body has no boundary in its Content-Type")
    form = _Form(max_images)
    try:
        parser = MultipartParser(
            boundary,
            form.callbacks(),  # type: ignore[arg-type]
            max_header_count=MAX_PART_HEADERS,
            max_header_size=MAX_PART_HEADER_BYTES,
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RequestError(400, "the multipart body is malformed") from error
    if not form.complete:
        raise RequestError(400, "the multipart body is cut short")
    if not form.files:
        raise RequestError(400, "the multipart body holds no file")
    return form.files


def bytes_to_parse(content_type: str, body: bytes) -> int:
    """How much of a body `uploads` has to look at: nothing of one that is an image by itself."""
    form = content_type.lstrip().lower().startswith("multipart/")
    return len(body) if form or is_json(content_type, body) else 0


class _Form:
    """Collects the files that the parser comes across."""

    def __init__(self, max_images: int) -> None:
        self.files: list[Upload] = []
        self.complete = False
        self._max_images = max_images
        self._field, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._data = bytearray()

    def callbacks(self) -> dict[str, Callable[..., None]]:
        """What the parser calls."""
        names = (
            "on_part_begin",
            "on_header_field",
            "on_header_value",
            "on_header_end",
            "on_headers_finished",
            "on_part_data",
            "on_part_end",
            "on_end",
        )
        return {name: getattr(self, f"_{name}") for name in names}

    def _on_part_begin(self) -> None:
        if len(self.files) >= self._max_images:
            raise RequestError(413, f"the request has more than {self._max_images} images")
        self._headers, self._data = {}, bytearray()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"filename" not in options:
            raise RequestError(
                400, "the form has a field that is not a file; options belong in the URL's query"
            )
        self._name = options[b"filename"].decode("utf-8", "replace")[:MAX_NAME_LENGTH]

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def _on_part_end(self) -> None:
        self.files.append(Upload(self._name, bytes(self._data)))

    def _on_end(self) -> None:
        self.complete = True
