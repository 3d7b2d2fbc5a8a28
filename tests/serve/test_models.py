"""When a bundle counts as changed, and as which version."""

import shutil
import zipfile
from pathlib import Path

import pytest

from inception.runtime.plan import FOLDER, PLAN_FILE
from inception.serve.models import Source, version_of


@pytest.fixture
def bundle(tiny_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_path, tmp_path / "bundle"))


def test_every_file_that_arrives_is_a_change(bundle: Path):
    """As when a copying tool writes the manifest first and the weights last."""
    source = Source("m", bundle)
    weights = (bundle / "model.safetensors").read_bytes()
    stamps = [source.stamp()]
    for content in (weights[:100], weights):
        (bundle / "model.safetensors").write_bytes(content)
        stamps.append(source.stamp())
    (bundle / FOLDER).mkdir()
    (bundle / FOLDER / PLAN_FILE).write_text("{}")
    stamps.append(source.stamp())
    assert len(set(stamps)) == 4
    assert source.stamp() == stamps[-1]
    (bundle / "bundle.json").unlink()
    assert source.stamp() is None
    assert Source("m", bundle / "absent").stamp() is None


def test_a_plan_is_another_version_and_a_zip_the_same(bundle: Path, tmp_path: Path):
    plain = version_of(bundle)
    packed = tmp_path / "bundle.zip"

    def pack() -> None:
        with zipfile.ZipFile(packed, "w") as archive:
            for file in bundle.rglob("*"):
                if file.is_file():
                    archive.write(file, file.relative_to(bundle).as_posix())

    pack()
    assert version_of(packed) == plain
    (bundle / FOLDER).mkdir()
    versions = {plain}
    for content in ("{}", '{"engine": "torch"}'):
        (bundle / FOLDER / PLAN_FILE).write_text(content)
        versions.add(version_of(bundle))
    assert len(versions) == 3
    pack()
    assert version_of(packed) == version_of(bundle)
