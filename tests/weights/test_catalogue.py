"""The catalogue against the installed libraries' own metadata, and fetching from a server that misbehaves."""

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import torchvision

from inception.cli.main import run
from inception.data import download as download_module
from inception.errors import DownloadError, UsageError
from inception.nets.registry import build_network, list_models
from inception.weights import catalogue
from inception.weights.bundle import load_bundle
from inception.weights.catalogue import CATALOGUE, Entry, expected_preprocess, find_entry
from inception.weights.fetch import fetch, published_bundle, weights_folder
from inception.weights.pretrained import create_model

# What it says


def test_every_entry_is_of_a_known_network_and_says_what_vouches_for_it():
    assert len(CATALOGUE) >= 30
    for name, entry in CATALOGUE.items():
        assert name == entry.name
        assert entry.network in list_models()
        assert name.startswith(f"{entry.network}.")
        assert entry.license
        assert entry.url.startswith(("http://", "https://"))
        assert (entry.checksum is None) == (entry.checksum_source == catalogue.NONE_PUBLISHED)
        if entry.checksum is not None:
            algorithm, _, digits = entry.checksum.partition(":")
            assert len(digits) in {"sha256": (8, 64), "sha1": (40,), "md5": (32,)}[algorithm]
            int(digits, 16)
        assert (entry.top1 is None) == (entry.accuracy_source == "")
        assert expected_preprocess(entry).in_chans == 3


@pytest.mark.parametrize(
    "entry", [e for e in CATALOGUE.values() if e.tool == "torchvision"], ids=lambda e: e.name
)
def test_torchvisions_entries_are_its_metadata(entry):
    name = entry.network.removesuffix("_tv")
    enum = torchvision.models.get_model_weights(name)
    weights = enum.IMAGENET1K_V1
    accuracy = weights.meta["_metrics"]["ImageNet-1K"]
    assert (entry.url, entry.top1, entry.top5) == (weights.url, accuracy["acc@1"], accuracy["acc@5"])
    transform, preprocess = weights.transforms(), expected_preprocess(entry)
    assert (preprocess.height, round(preprocess.height / preprocess.crop_fraction)) == (
        transform.crop_size[0],
        transform.resize_size[0],
    )


@pytest.mark.parametrize("entry", [e for e in CATALOGUE.values() if e.tool == "timm"], ids=lambda e: e.name)
def test_timms_entries_are_its_metadata(entry):
    timm = pytest.importorskip("timm")
    config, preprocess = timm.get_pretrained_cfg(entry.name), expected_preprocess(entry)
    assert f"huggingface.co/{config.hf_hub_id}/" in entry.url
    assert config.license.lower() == entry.license.partition(" ")[0].lower()
    assert (preprocess.mean, preprocess.std) == (tuple(config.mean), tuple(config.std))
    assert (preprocess.crop_fraction, preprocess.interpolation) == (config.crop_pct, config.interpolation)
    assert (preprocess.height, preprocess.width) == config.input_size[1:]


@pytest.mark.shared
def test_accuracies_are_those_of_the_verified_list(shared):
    import csv

    with (shared / "facts" / "published_results.csv").open() as stream:
        rows = {(row["model"], row["top1"], row["top5"]) for row in csv.DictReader(stream)}
    listed = {(float(a), float(b)) for _, a, b in rows if a and b}
    for entry in CATALOGUE.values():
        if entry.tool in ("timm", "slim", "caffe"):
            assert (entry.top1, entry.top5) in listed, entry.name


def test_near_names_are_offered():
    with pytest.raises(UsageError, match=r"did you mean .*inception_v3\.tv_in1k"):
        find_entry("inception_v3")
    with pytest.raises(UsageError, match=r"did you mean .*googlenet\.bvlc"):
        find_entry("googlenet.bvcl")


def test_the_list(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("INCEPTION_CACHE", str(tmp_path))
    assert run(["weights", "list"]) == 0
    assert "googlenet.bvlc" in capsys.readouterr().out
    assert run(["weights", "list", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == list(CATALOGUE)
    assert not any(row["cached"] for row in rows)


# Fetching


class Server:
    """Serves `files`; `faults` are used up first, one a request."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.faults: list[str] = []
        self.requests: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append(self.path)
                server.answer(self)
                self.close_connection = True

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request):
        content = self.files.get(request.path.rpartition("/")[2])
        if content is None:
            request.send_error(404)
            return
        start = int((request.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "busy":
            request.send_error(503)
            return
        rest = content[start:]
        if fault == "corrupt":
            rest = bytes(byte ^ 255 for byte in rest[:64]) + rest[64:]
        request.send_response(206 if start else 200)
        length = (
            len(rest) * 3
            if fault == "long length"
            else len(rest) // 2
            if fault == "short length"
            else len(rest)
        )
        request.send_header("Content-Length", str(length))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.end_headers()
        request.wfile.write(rest[: len(rest) // 3] if fault == "drop" else rest)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture(scope="module")
def content():
    torch.manual_seed(3)
    buffer = io.BytesIO()
    torch.save(build_network("googlenet_tv", num_classes=3, aux_logits=False).state_dict(), buffer)
    return buffer.getvalue()


@pytest.fixture
def entry(server, content, tmp_path, monkeypatch):
    """A published file of a tiny kind, in the catalogue and on the server."""
    monkeypatch.setenv("INCEPTION_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INCEPTION_WEIGHTS_URL_PREFIX", raising=False)
    monkeypatch.setattr(download_module.time, "sleep", lambda _: None)
    server.files["net.pth"] = content
    entry = Entry(
        "googlenet_tv.test",
        "googlenet_tv",
        f"{server.url}/net.pth",
        f"sha256:{hashlib.sha256(content).hexdigest()[:8]}",
        "the test",
        "CC0",
        "torchvision",
        None,
        None,
        "",
    )
    monkeypatch.setitem(CATALOGUE, entry.name, entry)
    return entry


def leftovers():
    return [path.name for path in weights_folder().rglob("*") if path.is_file()]


def test_get_makes_a_bundle_and_keeps_the_file(entry, server, tmp_path, capsys):
    assert run(["weights", "get", entry.name, "-o", str(tmp_path / "bundle"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["verified"] is True
    bundle = load_bundle(tmp_path / "bundle")
    assert (bundle.network, len(bundle.labels)) == ("googlenet_tv", 3)
    assert bundle.provenance["catalogue"] == entry.name
    assert bundle.provenance["url"] == entry.url
    assert bundle.provenance["license"] == "CC0"
    assert bundle.provenance["downloaded_sha256"] == printed["sha256"]
    assert leftovers() == ["net.pth"]
    server.files.clear()
    assert run(["weights", "get", entry.name, "-o", str(tmp_path / "again")]) == 0
    assert len(server.requests) == 1
    model = create_model("googlenet_tv", pretrained=entry.name)
    assert torch.equal(model.state_dict()["fc.weight"], bundle.state_dict["fc.weight"])


@pytest.mark.parametrize(
    "faults",
    [["drop"], ["drop", "drop", "busy"], ["corrupt"], ["long length"], ["short length"], ["busy"]],
    ids=str,
)
def test_faults_of_the_server_cost_time_only(entry, server, content, faults):
    server.faults = list(faults)
    assert fetch(entry.name).read_bytes() == content
    assert leftovers() == ["net.pth"]


def test_a_server_that_never_tells_the_truth_leaves_no_weights(entry, server):
    server.faults = ["corrupt"] * 9
    with pytest.raises(DownloadError, match="does not match"):
        fetch(entry.name)
    assert leftovers() == []
    del server.files["net.pth"]
    with pytest.raises(DownloadError, match="404"):
        fetch(entry.name)


def test_a_broken_download_is_resumed_by_the_next_call(entry, server, content):
    server.faults = ["drop"] * 4
    with pytest.raises(DownloadError, match="the connection ended"):
        fetch(entry.name)
    assert leftovers() == ["net.pth.part"]
    assert fetch(entry.name).read_bytes() == content
    assert leftovers() == ["net.pth"]


def test_a_file_in_the_cache_that_went_bad_is_fetched_again(entry, content):
    path = fetch(entry.name)
    path.write_bytes(content[:-100])
    assert fetch(entry.name).read_bytes() == content


def test_offline(entry, content):
    with pytest.raises(
        DownloadError, match=r"not in the cache: run `inception weights get googlenet_tv\.test`"
    ):
        fetch(entry.name, offline=True)
    with pytest.raises(DownloadError, match="not in the cache"):
        create_model("googlenet_tv", pretrained=entry.name)
    place = weights_folder() / entry.name / "net.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    assert fetch(entry.name, offline=True) == place
    place.write_bytes(b"other")
    with pytest.raises(DownloadError, match="not in the cache"):
        fetch(entry.name, offline=True)


def test_mirrors(entry, server, monkeypatch, content):
    monkeypatch.setitem(CATALOGUE, entry.name, replace(entry, url="http://127.0.0.1:9/dead/net.pth"))
    assert fetch(entry.name, mirror=f"{server.url}/mirror/").read_bytes() == content
    assert server.requests == ["/mirror/net.pth"]
    fetch(entry.name).unlink()
    monkeypatch.setenv("INCEPTION_WEIGHTS_URL_PREFIX", f"{server.url}/other")
    fetch(entry.name)
    assert server.requests[-1] == "/other/net.pth"


def test_without_a_published_checksum_it_must_be_allowed(entry, monkeypatch, tmp_path, capsys):
    bare = replace(entry, checksum=None, checksum_source=catalogue.NONE_PUBLISHED)
    monkeypatch.setitem(CATALOGUE, entry.name, bare)
    arguments = ["weights", "get", entry.name, "-o", str(tmp_path / "bundle")]
    assert run(arguments) == 2
    assert "--allow-unverified" in capsys.readouterr().err
    assert run([*arguments, "--allow-unverified"]) == 0
    assert "SHA-256" in capsys.readouterr().err
    assert "not verified" in load_bundle(tmp_path / "bundle").provenance["checksum"]


def pack(kind, files):
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_archives_are_unpacked_in_the_cache(entry, server, content, monkeypatch, kind):
    packed = pack(kind, {"../escape/net.pth": content, "names.txt": b"a\nb\nc\n"})
    server.files[f"pack.{kind}"] = packed
    changed = replace(
        entry,
        url=f"{server.url}/pack.{kind}",
        checksum=f"sha256:{hashlib.sha256(packed).hexdigest()}",
        member="net.pth",
        labels_member="names.txt",
    )
    monkeypatch.setitem(CATALOGUE, entry.name, changed)
    bundle = published_bundle(entry.name)
    assert bundle.labels == ("a", "b", "c")
    assert sorted(leftovers()) == ["net.labels.txt", "net.pth", f"pack.{kind}"]
    monkeypatch.setitem(CATALOGUE, entry.name, replace(changed, member="absent.pth"))
    with pytest.raises(DownloadError, match=r"does not hold absent\.pth"):
        fetch(entry.name)


def test_a_damaged_archive_is_a_download_error(entry, server, content, monkeypatch):
    packed = pack("tar.gz", {"net.pth": content})[:-5000]
    server.files["pack.tgz"] = packed
    changed = replace(
        entry,
        url=f"{server.url}/pack.tgz",
        checksum=f"md5:{hashlib.md5(packed).hexdigest()}",
        member="net.pth",
    )
    monkeypatch.setitem(CATALOGUE, entry.name, changed)
    with pytest.raises(DownloadError, match=r"pack\.tgz"):
        fetch(entry.name)
    assert leftovers() == ["pack.tgz"]
