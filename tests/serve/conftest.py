"""Servers for the tests: one shared, others as wanted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import TOKEN, Serve, Served, make_bundle, start_server
from shapes import COLOURS, shape_picture

from inception.weights.bundle import save_bundle

for _module in ("starlette", "uvicorn", "prometheus_client", "python_multipart"):
    pytest.importorskip(_module, reason="serving needs the extra 'serve'")


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle on disk; not to be written to."""
    path = tmp_path_factory.mktemp("served") / "shapes" / "bundle"
    save_bundle(make_bundle(), path)
    return path


@pytest.fixture(scope="session")
def served(bundle_path: Path) -> Iterator[Served]:
    """A server that all harmless tests share."""
    server = start_server(bundle_path, f"second={bundle_path}", "--max-images", "4")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def guarded(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that wants `TOKEN`."""
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(f"{TOKEN}\n")
    server = start_server(bundle_path, "--token-file", file)
    yield server
    server.stop()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that end with the test."""
    servers: list[Served] = []

    def start(*arguments: object, wait: bool = True, **settings: object) -> Served:
        servers.append(start_server(*arguments, wait=wait, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three pictures as PNG files."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, label in enumerate(COLOURS):
        shape_picture(label, index).save(folder / f"{label}.png")
    return sorted(folder.iterdir())
