"""`inception serve`: bundles behind HTTP, with a page for people."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from inception.errors import UsageError
from inception.files import read_at_most

TOKEN_LIMIT_BYTES = 1 << 16
_NEEDED = ("starlette", "uvicorn", "h11", "python_multipart", "prometheus_client")


@click.command(short_help="Answer over HTTP, with a page for people.")
@click.argument("bundles", nargs=-1, required=True, metavar="[NAME=]BUNDLE…")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0: every one."
)
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME",
    help="Name under which clients may ask, beside localhost, and addresses if --host is one of others; "
    "may be repeated; '*': every name.",
)
@click.option(
    "--token-file", type=click.Path(path_type=Path), help="File whose text clients must send as bearer token."
)
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", default="float32", show_default=True, help="float32, bfloat16 or auto.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of one model.  [default: PyTorch's]")
@click.option(
    "--max-batch", default=8, show_default=True, type=click.IntRange(1, 1024), help="Images computed at once."
)
@click.option(
    "--max-queue",
    default=64,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Images waiting for a model.",
)
@click.option(
    "--max-images",
    default=32,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Images in one request.",
)
@click.option(
    "--max-body",
    "max_body_megabytes",
    default=32,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="Megabytes (2^20 bytes) of one request.",
)
@click.option(
    "--max-pixels",
    default=50_000_000,
    show_default=True,
    type=click.IntRange(1, 178_000_000),
    help="Pixels of one image.",
)
@click.option(
    "--deadline",
    "deadline_seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0.1, 3600),
    help="Seconds an image may wait.",
)
@click.option(
    "--drain",
    "drain_seconds",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 600),
    help="Seconds after SIGTERM in which new connections are still taken.",
)
@click.option(
    "--watch",
    "watch_seconds",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 86_400),
    help="Seconds between looks for a new version; 0: on SIGHUP only.",
)
@click.option(
    "--explain/--no-explain", default=True, show_default=True, help="Whether clients may ask why: /explain."
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Requests are logged at info.",
)
def serve(
    bundles: tuple[str, ...],
    token_file: Path | None,
    max_body_megabytes: int,
    log_level: str,
    **values: Any,
) -> int:
    """Serve BUNDLES: folders or .zip files, each under the name of its folder or the one given as NAME=.

    The page for people is at /, the description for machines at /openapi.json. SIGTERM and Ctrl-C finish what
    has been accepted; SIGHUP takes new versions of the bundles. Logs are JSON lines on standard error.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"serving needs {', '.join(missing)}: pip install 'inception[serve]'")
    from inception.cli.console import say
    from inception.serve.logs import log_event, set_up_logs
    from inception.serve.models import Source
    from inception.serve.server import open_listener, run_server
    from inception.serve.settings import Settings

    sources = [Source.parse(bundle) for bundle in bundles]
    settings = Settings(token=read_token(token_file), max_body_bytes=max_body_megabytes << 20, **values)
    set_up_logs(log_level)
    with open_listener(settings) as listener:
        port = listener.getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url, names = f"http://{host}:{port}/", [source.name for source in sources]
        log_event("listening", url=url, models=names)
        if not settings.is_local and settings.token is None:
            log_event("everyone who reaches this address can use it: consider --token-file", "warning")
        if sys.stderr.isatty():
            say(f"Open {url} in a browser; Ctrl-C stops.")
        run_server(sources, settings, listener)
    return 0


def read_token(path: Path | None) -> str | None:
    """The token in a file, without surrounding space. Raises UsageError when it cannot be read."""
    if path is None:
        return None
    try:
        return read_at_most(path, TOKEN_LIMIT_BYTES).decode("utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a short text"
        raise UsageError(f"the token file {path} cannot be read: {reason}") from error
