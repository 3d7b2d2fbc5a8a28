"""From what a person names to images, in order, with a row for everything that is wrong."""

import errno
import shutil
import tarfile
import zipfile

import pytest
from shapes import shape_picture

from inception.data.stores import FolderStore
from inception.errors import DataError, ImageError
from inception.runtime.inputs import expand_inputs


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    for seed, name in enumerate(
        ["b.png", "a.JPG", "sub/c.webp", ".hidden/d.png", "__MACOSX/e.png", ".f.png"]
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shape_picture("jade", seed).save(path, {".JPG": "JPEG", ".webp": "WEBP"}.get(path.suffix, "PNG"))
    (root / "notes.txt").write_text("no image")
    return root


def pairs(paths, listing=()):
    return list(expand_inputs([str(path) for path in paths], listing))


def failure(opener) -> str:
    with pytest.raises(ImageError) as caught:
        opener()
    return str(caught.value)


def test_a_folder_gives_its_visible_images_in_order(folder):
    found = pairs([folder])
    assert [name for name, _ in found] == [f"{folder}/{name}" for name in ("a.JPG", "b.png", "sub/c.webp")]
    assert [opener().mode for _, opener in found] == ["RGB"] * 3
    assert [name for name, _ in pairs([f"{folder}/"])] == [name for name, _ in found]


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_an_archive_gives_the_same_images_as_its_folder(folder, tmp_path, suffix):
    path = tmp_path / f"photos.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in folder.rglob("*"):
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(path, "w:gz" if suffix.endswith("gz") else "w") as archive:
            archive.add(folder, ".")
    inside, outside = pairs([path]), pairs([folder])
    assert len(inside) == len(outside) == 3
    for (name, ours), (other, theirs) in zip(inside, outside, strict=True):
        assert name.startswith(f"{path}/")
        assert name.rsplit("/", 1)[1] == other.rsplit("/", 1)[1]
        assert ours().tobytes() == theirs().tobytes()


def test_a_list_is_read_line_by_line_and_lazily(folder):
    def lines():
        yield f"{folder}/b.png\n"
        yield "\n"
        yield f"{folder}/a.JPG\r\n"
        raise AssertionError("read too far ahead")

    items = expand_inputs(["-"], lines())
    assert [next(items)[0], next(items)[0]] == [f"{folder}/b.png", f"{folder}/a.JPG"]


def test_files_keep_the_order_given_even_twice(folder):
    names = [folder / "b.png", folder / "a.JPG", folder / "b.png"]
    assert [name for name, _ in pairs(names)] == [str(name) for name in names]


def test_what_is_wrong_fails_when_opened_not_before(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 no zip")
    (tmp_path / "text.png").write_text("no image")
    wrong = ["nowhere.png", tmp_path / "empty", tmp_path / "broken.zip", tmp_path / "text.png", "nowhere.zip"]
    found = pairs([*wrong, folder / "b.png"])
    assert [name for name, _ in found] == [*map(str, wrong), f"{folder}/b.png"]
    messages = [failure(opener) for _, opener in found[:-1]]
    assert "No such file" in messages[0]
    assert "holds no images" in messages[1]
    assert "broken.zip" in messages[2]
    assert "text.png" in messages[3]
    assert found[-1][1]().mode == "RGB"


def test_a_folder_that_cannot_be_listed_is_one_failing_item(folder, monkeypatch):
    def refuse(self):
        raise DataError(f"The folder {self.location} cannot be listed: Permission denied.")

    monkeypatch.setattr(FolderStore, "names", refuse)
    [(name, opener), (other, fine)] = pairs([folder, folder / "b.png"])
    assert name == str(folder)
    assert "cannot be listed" in failure(opener)
    assert other.endswith("b.png")
    assert fine().mode == "RGB"


def test_names_that_the_system_refuses_are_failing_items(folder, monkeypatch):
    """Too long, with a null byte, and where nobody may look."""
    real = type(folder).is_dir

    def refuse(self):
        if self.name == "secret":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(self)

    monkeypatch.setattr(type(folder), "is_dir", refuse)
    wrong = ["a" * 300 + ".png", "a" * 300 + ".zip", "null\0byte.png", f"{folder}/secret"]
    found = list(expand_inputs(["-"], [f"{path}\n" for path in (*wrong, folder / "b.png")]))
    assert [name for name, _ in found] == [*wrong, f"{folder}/b.png"]
    messages = [failure(opener) for _, opener in found[:-1]]
    assert all("cannot be read" in message for message in messages)
    assert "too long" in messages[0] and "too long" in messages[1]
    assert "Permission denied" in messages[3]
    assert found[-1][1]().mode == "RGB"


def test_a_tar_in_a_folder_of_images_hides_none(folder):
    expected = [name for name, _ in pairs([folder / "b.png", folder / "sub"])]
    with tarfile.open(folder / "old.tar", "w") as archive:
        archive.add(folder / "a.JPG", "a.JPG")
    (folder / "a.JPG").unlink()
    shutil.rmtree(folder / "__MACOSX")
    assert [name for name, _ in pairs([folder])] == expected
    (folder / "sub").rename(folder.parent / "elsewhere")
    assert [name for name, _ in pairs([folder])] == [f"{folder}/b.png"]


def test_the_files_of_images_can_be_had_as_they_are(folder, tmp_path):
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        archive.add(folder / "b.png", "b.png")
    data = (folder / "b.png").read_bytes()
    for path in (folder / "b.png", tmp_path / "one.tar"):
        [(_, image)] = pairs([path])
        assert image.read() == data
    [(_, image)] = pairs([tmp_path / "nowhere"])
    assert failure(image.read) == failure(image)
