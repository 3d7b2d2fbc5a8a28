"""The routes. What each takes and gives is in `openapi.json`, which is served as well."""

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import accumulate
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

import inception
from inception.serve.bodies import BodyReader, ClientGoneError, Upload, bytes_to_parse, uploads
from inception.serve.engine import Answered, Engine
from inception.serve.guard import CLIENT_GONE, Guard
from inception.serve.inference import LENGTH_HEADER, describe_model, encode_answer, json_bytes, parse_request
from inception.serve.json_images import TAKEN
from inception.serve.metrics import Metrics
from inception.serve.models import Models
from inception.serve.parsing import Parsing
from inception.serve.settings import RequestError, Settings, unavailable

EXTENSIONS = ("binary_tensor_data", "classify", "explain", "models")
MAX_TOP = 1000
EXPLANATION_FORMS = {"json": ("seen", "map", "overlay"), "png": ("overlay",)}
STATUS_OF_KIND = {"empty": 400, "format": 415, "truncated": 422, "corrupt": 422, "too_large": 413}
STATUS_OF_KIND["network"] = 500
_PAGE = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "words.js": "text/javascript; charset=utf-8",
    "explain.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "temple.jpg": "image/jpeg",
    "flower.jpg": "image/jpeg",
    "digit.png": "image/png",
}
_SWITCH = {"0": False, "false": False, "1": True, "true": True}


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; text that is no valid Unicode (file names, labels) is replaced, never an error."""
    body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode(errors="replace")
    return Response(body, status, headers, "application/json")


@dataclass(frozen=True)
class ClassifyOptions:
    """The query of `/classify`."""

    model: str | None
    version: str | None
    top: int
    auxiliary: bool
    unknown: bool

    @classmethod
    def of(cls, request: Request) -> "ClassifyOptions":
        """Raises a 400 RequestError for what does not exist or is impossible."""
        query = checked_query(request, cls)
        top = query.get("top", "5")
        if not (_is_number(top) and 1 <= int(top) <= MAX_TOP):
            raise RequestError(400, f"top must be a whole number in 1..{MAX_TOP}")
        switches = {name: _SWITCH.get(query.get(name, "0")) for name in ("auxiliary", "unknown")}
        for name, value in switches.items():
            if value is None:
                raise RequestError(400, f"{name} must be 0 or 1")
        auxiliary, unknown = bool(switches["auxiliary"]), bool(switches["unknown"])
        return cls(query.get("model"), query.get("version"), int(top), auxiliary, unknown)


@dataclass(frozen=True)
class ExplainOptions:
    """The query of `/explain`; `target` is the position of a class, None: the best one."""

    model: str | None
    version: str | None
    method: str
    target: int | None
    form: str

    @classmethod
    def of(cls, request: Request) -> "ExplainOptions":
        """Raises a 400 RequestError for what does not exist or is impossible."""
        query = checked_query(request, cls)
        target, form = query.get("target"), query.get("form", "json")
        if target is not None and not _is_number(target):
            raise RequestError(400, "target must be the position of a class, a whole number")
        if form not in EXPLANATION_FORMS:
            raise RequestError(400, f"form must be one of {', '.join(EXPLANATION_FORMS)}")
        method = query.get("method", "grad-cam").replace(" ", "+")  # as a plus in a query is read
        index = None if target is None else int(target)
        return cls(query.get("model"), query.get("version"), method, index, form)

    def ask(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """As an `answers.Ask`. Raises a 400 RequestError for what a model with these facts has not."""
        if self.method not in facts["explain"]:
            raise RequestError(400, f"method must be one of {', '.join(facts['explain'])}")
        classes = len(facts["labels"])
        if self.target is not None and self.target >= classes:
            raise RequestError(400, f"target must be in 0..{classes - 1}")
        pictures = EXPLANATION_FORMS[self.form]
        return {"form": "file", "explain": self.method, "target": self.target, "pictures": pictures}


def checked_query(request: Request, options: type[Any]) -> dict[str, str]:
    """The query, whose keys must be fields of `options`. Raises a 400 RequestError."""
    query = dict(request.query_params)
    if query.keys() - options.__dataclass_fields__.keys():
        known = ", ".join(options.__dataclass_fields__)
        raise RequestError(400, f"unknown options in the query; there are: {known}")
    return query


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 6


class Api:
    """The handlers; each takes a request and returns its answer."""

    def __init__(self, models: Models, settings: Settings, metrics: Metrics) -> None:
        self._models, self._settings, self._metrics = models, settings, metrics
        self._bodies, self._parsing = BodyReader(settings), Parsing(settings)
        folder = files("inception.serve")
        self._files = {name: (folder / "page" / name).read_bytes() for name in _PAGE}
        document = json.loads((folder / "openapi.json").read_text(encoding="utf-8"))
        document["info"]["version"] = inception.__version__
        self._openapi = document

    def routes(self) -> list[Route]:
        """Every route of the server."""
        model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
        return [
            Route("/", self.page),
            Route("/static/{name}", self.static),
            Route("/openapi.json", self.openapi),
            Route("/metrics", self.metrics),
            Route("/models", self.models),
            Route("/classify", self.classify, methods=["POST"]),
            Route("/explain", self.explain, methods=["POST"]),
            Route("/v2", self.server_metadata),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            *(Route(path, self.model_metadata) for path in (model, version)),
            *(Route(f"{path}/ready", self.model_ready) for path in (model, version)),
            *(Route(f"{path}/infer", self.infer, methods=["POST"]) for path in (model, version)),
        ]

    async def page(self, request: Request) -> Response:
        """The page for people."""
        return self._file("index.html")

    async def static(self, request: Request) -> Response:
        """The page's style, scripts and icon."""
        return self._file(request.path_params["name"])

    def _file(self, name: str) -> Response:
        if name not in self._files:
            raise RequestError(404, "there is no such file")
        return Response(self._files[name], headers={"Cache-Control": "no-cache"}, media_type=_PAGE[name])

    async def openapi(self, request: Request) -> Response:
        """The description of all routes for machines."""
        return json_response(self._openapi)

    async def metrics(self, request: Request) -> Response:
        """Prometheus's text form."""
        self._metrics.ready.set(self._models.ready)
        return Response(self._metrics.render(), media_type=Metrics.CONTENT_TYPE)

    async def models(self, request: Request) -> Response:
        """All models, and the limits of a request."""
        limits = {"max_body_bytes": self._settings.max_body_bytes, "max_images": self._settings.max_images}
        return json_response({"models": self._models.describe(), "limits": limits})

    async def server_metadata(self, request: Request) -> Response:
        """The protocol's server metadata."""
        return json_response(
            {"name": "inception", "version": inception.__version__, "extensions": list(EXTENSIONS)}
        )

    async def live(self, request: Request) -> Response:
        """200 while the process runs."""
        return json_response({"live": True})

    async def ready(self, request: Request) -> Response:
        """200 while every model answers, 503 before and while stopping."""
        ready = self._models.ready
        return json_response({"ready": ready}, 200 if ready else 503)

    def _engine(self, request: Request) -> Engine:
        return self._models.engine(request.path_params["model"], request.path_params.get("version"))

    async def model_metadata(self, request: Request) -> Response:
        """The protocol's model metadata."""
        engine = self._engine(request)
        return json_response(describe_model(engine.name, self._models.versions(engine.name), engine.facts))

    async def model_ready(self, request: Request) -> Response:
        """200 while this model answers."""
        engine = self._engine(request)
        return json_response({"name": engine.name, "ready": engine.ready}, 200 if engine.ready else 503)

    async def infer(self, request: Request) -> Response:
        """The protocol's inference, in JSON or with binary tensors."""
        self._engine(request).check_room()
        length = request.headers.get(LENGTH_HEADER)
        with self._bodies.lease() as lease:
            limit = self._settings.max_body_bytes if length is not None else self._settings.max_json_bytes
            body = await self._bodies.read(request, lease, min(limit, self._settings.max_body_bytes))
            shape = self._engine(request).facts["shape"]
            asked = await self._parsing.run(
                json_bytes(body, length), parse_request, body, length, shape, self._settings
            )
            # Again, and without a pause before the images are queued: a new version may have come meanwhile.
            engine = self._engine(request)
            if engine.facts["shape"] != shape:
                raise unavailable("a new version of the model came meanwhile; try again")
            ask = {"form": asked.form, "tensors": asked.outputs}
            answers = await self._answers(request, engine, [(ask, image) for image in asked.images])
        for answer in answers:
            if "error" in answer.values:
                raise RequestError(STATUS_OF_KIND[answer.values["kind"]], answer.values["error"])
        rows = [answer.rows for answer in answers]
        size = 0 if asked.binary else sum(map(len, rows))
        content, head = await self._parsing.run(size, encode_answer, asked, engine.name, engine.version, rows)
        if head is None:
            return Response(content, media_type="application/json")
        return Response(content, headers={LENGTH_HEADER: str(head)}, media_type="application/octet-stream")

    async def classify(self, request: Request) -> Response:
        """Labels for one image (the body) or several (multipart/form-data), or for those in JSON."""
        options = ClassifyOptions.of(request)
        self._models.engine(options.model, options.version).check_room()
        with self._bodies.lease() as lease:
            body = await self._bodies.read(request, lease)
            kind = request.headers.get("content-type", "")
            images = await self._uploads(kind, body, self._settings.max_images)
            engine = self._models.engine(options.model, options.version)
            if options.unknown and not engine.facts["unknown"]:
                raise RequestError(400, "this model has no calibrated threshold for 'unknown'")
            ask = {
                "form": "file",
                "top": options.top,
                "auxiliary": options.auxiliary,
                "unknown": options.unknown,
                "tensors": (),
            }
            answers = await self._answers(request, engine, [(ask, image.data) for image in images])
        announced = kind.startswith(("image/", "application/octet-stream", "multipart/"))
        results = [
            {"path": image.name, **_result(answer.values, announced)}
            for image, answer in zip(images, answers, strict=True)
        ]
        document = {
            "model": engine.name,
            "version": engine.version,
            "results": results,
            "timing": _timing(answers),
        }
        if all("error" in result for result in results):
            status = STATUS_OF_KIND[answers[0].values["kind"]]
            text = results[0]["error"] if len(results) == 1 else "none of the images can be read"
            raise RequestError(status, text, body={"error": text, **document})
        return json_response(document)

    async def explain(self, request: Request) -> Response:
        """Why one image has its answer, or why another class would fit: pictures, and what branches gave."""
        options = ExplainOptions.of(request)
        engine = self._models.engine(options.model, options.version)
        engine.check_room()
        engine.check_explanations()
        with self._bodies.lease() as lease:
            body = await self._bodies.read(request, lease)
            kind = request.headers.get("content-type", "")
            [image] = await self._uploads(kind, body, 1)
            engine = self._models.engine(options.model, options.version)
            engine.check_explanations()
            [answer] = await self._answers(request, engine, [(options.ask(engine.facts), image.data)])
        values = dict(answer.values)
        if "error" in values:
            raise RequestError(STATUS_OF_KIND[values["kind"]], values["error"])
        pictures = _cut(answer.rows, values.pop("sizes"))
        if options.form == "png":
            return Response(pictures["overlay"], media_type="image/png")
        encoded = {name: base64.b64encode(data).decode() for name, data in pictures.items()}
        document = {"model": engine.name, "version": engine.version, **values, "pictures": encoded}
        return json_response({**document, "timing": answer.timing})

    async def _uploads(self, kind: str, body: bytes, most: int) -> list[Upload]:
        return await self._parsing.run(bytes_to_parse(kind, body), uploads, kind, body, most)

    async def _answers(
        self, request: Request, engine: Engine, asks: Sequence[tuple[dict[str, Any], bytes]]
    ) -> list[Answered]:
        """The answers in order. Raises RequestError, and ClientGoneError when nobody waits any more."""
        futures = engine.submit(asks)
        answers = asyncio.gather(*futures, return_exceptions=True)
        gone = asyncio.create_task(_gone(request))
        try:
            waited: set[asyncio.Future[Any]] = {answers, gone}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not answers.done():
                raise ClientGoneError
        finally:
            gone.cancel()
            for future in futures:
                future.cancel()
        answered = []
        for answer in answers.result():
            if isinstance(answer, BaseException):
                raise answer
            answered.append(answer)
        return answered


def _result(values: Mapping[str, Any], announced: bool) -> dict[str, Any]:
    """An answer as clients see it; who did not announce an image is told how images are sent."""
    result = {key: value for key, value in values.items() if key != "kind"}
    if not announced and values.get("kind") == "format":
        result["error"] = result["error"].replace("convert it or delete it", f"convert it, and {TAKEN}")
    return result


def _cut(data: bytes, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Pieces of `data` by name, one behind the other."""
    ends = list(accumulate(sizes.values()))
    return {name: data[end - size : end] for (name, size), end in zip(sizes.items(), ends, strict=True)}


def _timing(answers: Sequence[Answered]) -> dict[str, float]:
    return {name: max(answer.timing[name] for answer in answers) for name in answers[0].timing}


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refuse(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestError):
        return json_response(error.body, error.status, error.headers)
    if isinstance(error, HTTPException):
        return json_response({"error": error.detail}, error.status_code, error.headers)
    if isinstance(error, ClientGoneError):
        return Response(status_code=CLIENT_GONE)  # for the log alone: the connection is closed
    return json_response({"error": "the server failed; its log says why"}, 500)


def build_app(models: Models, settings: Settings, metrics: Metrics) -> ASGIApp:
    """The application, for any ASGI server; starting and stopping `models` is the caller's."""
    handled: tuple[type[Exception], ...] = (RequestError, HTTPException, ClientGoneError, Exception)
    app = Starlette(
        routes=Api(models, settings, metrics).routes(),
        exception_handlers=dict.fromkeys(handled, _refuse),
    )
    # A redirect would repeat the client's Host header.
    app.router.redirect_slashes = False
    return Guard(app, models, settings, metrics)
