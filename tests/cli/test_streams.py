"""Standard streams that are full, closed or left alone, and too little memory: one sentence and a code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
NO_ROOM = "inception: cannot write the output: No space left on device\n"
CLOSED = "inception: cannot write the output: Bad file descriptor\n"


def shell(script: str, **paths: object) -> subprocess.CompletedProcess[str]:
    """Run a line of bash; `inception` is the command under test, and `{name}` one of `paths`."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    line = script.format(**paths).replace("inception ", f"{sys.executable} -m inception ")
    environment = {name: value for name, value in os.environ.items() if name != "INCEPTION_DEBUG"}
    return subprocess.run(
        [bash, "-c", f"set -o pipefail; {line}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
    )


@pytest.fixture
def picture(tmp_path) -> Path:
    from PIL import Image

    Image.new("RGB", (40, 40), (200, 30, 30)).save(tmp_path / "red.png")
    return tmp_path / "red.png"


@pytest.mark.parametrize("command", ["inception models", "inception models --json", "inception --help"])
@pytest.mark.parametrize("place, sentence", [("> /dev/full", NO_ROOM), (">&-", CLOSED)])
def test_output_that_cannot_be_written(command, place, sentence):
    done = shell(f"{command} {place}")
    assert (done.returncode, done.stderr) == (1, sentence)


@pytest.mark.parametrize("form", ["", "--json", "--csv"])
@pytest.mark.parametrize("place, sentence", [("> /dev/full", NO_ROOM), (">&-", CLOSED)])
def test_answers_that_cannot_be_written(tiny_path, picture, form, place, sentence):
    done = shell(
        "inception predict {bundle} {picture} " + f"{form} {place}", bundle=tiny_path, picture=picture
    )
    assert (done.returncode, done.stderr) == (1, sentence)


@pytest.mark.parametrize("place", ["2>&-", "2>/dev/full", ">&- 2>&- <&-"])
def test_the_code_tells_what_the_message_cannot(place):
    done = shell(f"inception summary nowhere {place}")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_a_list_on_a_standard_input_that_is_closed(tiny_path):
    done = shell("inception predict {bundle} - <&-", bundle=tiny_path)
    assert done.returncode == 2
    assert done.stderr == "inception: standard input names no images: give one path a line\n"


def test_a_file_does_not_take_the_place_of_a_closed_output(tiny_path, picture, tmp_path):
    output = tmp_path / "answers.jsonl"
    done = shell(
        "inception predict {bundle} {picture} -o {output} >&- 2>&-",
        bundle=tiny_path,
        picture=picture,
        output=output,
    )
    assert done.returncode == 0
    [line] = output.read_text().splitlines()
    assert line.startswith('{"path": ')


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_a_reader_that_has_enough(tiny_path, picture, tmp_path, form):
    (tmp_path / "list").write_text(f"{picture}\n" * 3000)
    done = shell(
        "inception predict {bundle} - " + form + " < {list} | head -1",
        bundle=tiny_path,
        list=tmp_path / "list",
    )
    assert (done.returncode, done.stderr) == (141, "")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("kilobytes", [200_000, 600_000])
@pytest.mark.parametrize("command", ["inception models --json", "inception summary vgg19"])
def test_little_room_for_addresses(command, kilobytes):
    done = shell(f"ulimit -v {kilobytes}; {command}")
    if done.returncode == 0:
        pytest.skip("this PyTorch needs less")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("inception: there is not enough memory")


@pytest.mark.parametrize(
    "error, sentence",
    [
        (MemoryError(), "there is not enough memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
            "memory",
        ),
        (RuntimeError("can't start new thread"), "there is not enough memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "memory"),
        (OSError(12, "Cannot allocate memory"), "there is not enough memory"),
        (OSError(24, "Too many open files", "a\nb"), "inception: a\\nb: Too many open files\n"),
        (PermissionError(13, "Permission denied", "/place"), "inception: /place: Permission denied\n"),
        (OSError(5, "Input/output error"), "inception: cannot write the output: Input/output error\n"),
    ],
    ids=str,
)
def test_what_the_system_refuses_is_no_defect(error, sentence, monkeypatch, inception):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("inception.cli.main._discard_output", lambda: None)
    monkeypatch.setattr("inception.cli.models.list_models", fail)
    outcome = inception("models")
    assert outcome.code == 1
    assert sentence in outcome.err
    assert len(outcome.err.splitlines()) == 1
