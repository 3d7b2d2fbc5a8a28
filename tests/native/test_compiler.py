"""Sources in C that are compiled, kept, made again, or honestly not there."""

import os
import stat
from ctypes import c_int

import pytest

from inception.native import compiler as module
from inception.native.compiler import KernelError, Sources, compiled


@pytest.fixture
def sources(monkeypatch, tmp_path):
    monkeypatch.setenv("INCEPTION_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "twice.c"
    file.write_text('#include "vectors.h"\nint twice(int x) { return 2 * x; }\n')
    return Sources("twice", (file,), (), (), {"twice": (c_int, [c_int])})


@pytest.fixture
def made(sources):
    try:
        return compiled(sources)
    except KernelError as error:
        pytest.skip(f"no kernels here: {error}")


def kept_files(tmp_path):
    return list((tmp_path / "cache" / "kernels").iterdir())


def fake_compiler(folder, monkeypatch, script):
    path = folder / "gcc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def counted_compilations(monkeypatch):
    calls, before = [], module._compile
    monkeypatch.setattr(module, "_compile", lambda *args: calls.append(before(*args)))
    return calls


def test_compiled_once_and_kept(made, sources, tmp_path, monkeypatch):
    assert made.twice(21) == 42
    assert len(kept_files(tmp_path)) == 1
    calls = counted_compilations(monkeypatch)
    assert compiled(sources).twice(2) == 4
    assert not calls


def test_changed_sources_are_compiled_anew(made, sources, tmp_path):
    sources.files[0].write_text("int twice(int x) { return x + x + 1; }\n")
    assert compiled(sources).twice(2) == 5
    assert len(kept_files(tmp_path)) == 2


def test_other_flags_are_compiled_anew(made, sources, tmp_path):
    compiled(Sources("twice", sources.files, (), ("-pthread",), sources.signatures))
    assert len(kept_files(tmp_path)) == 2


def test_a_damaged_file_is_made_again(made, sources, tmp_path, monkeypatch):
    (kept,) = kept_files(tmp_path)
    damaged = tmp_path / "other" / "kernels" / kept.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"not a library")
    monkeypatch.setenv("INCEPTION_CACHE", str(tmp_path / "other"))
    assert compiled(sources).twice(3) == 6
    assert damaged.read_bytes()[:4] == b"\x7fELF"


def test_without_a_place_to_keep_it(made, sources, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INCEPTION_CACHE", str(tmp_path / "file" / "below"))
    assert compiled(sources).twice(3) == 6


def test_without_a_home(made, sources, monkeypatch):
    def homeless(name):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(module, "cache_folder", homeless)
    assert compiled(sources).twice(3) == 6


def test_what_others_can_write_is_not_loaded(made, sources, tmp_path, monkeypatch):
    (kept,) = kept_files(tmp_path)
    kept.chmod(0o666)
    calls = counted_compilations(monkeypatch)
    compiled(sources)
    assert len(calls) == 1


def test_without_a_compiler_what_was_made_before_is_loaded(made, sources, monkeypatch):
    monkeypatch.setattr(module, "COMPILERS", ("no-such-compiler",))
    assert compiled(sources).twice(4) == 8


def test_no_compiler(sources, monkeypatch):
    monkeypatch.setattr(module, "COMPILERS", ("no-such-compiler",))
    with pytest.raises(KernelError, match=r"no C compiler \(gcc\)"):
        compiled(sources)


def test_a_compiler_that_fails_says_why_in_one_line(sources, tmp_path, monkeypatch):
    fake_compiler(tmp_path, monkeypatch, '[ "$1" = --version ] && exit 0; echo "bad flag\nmore" >&2; exit 1')
    with pytest.raises(KernelError) as caught:
        compiled(sources)
    assert "bad flag" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_warnings_are_not_the_reason(sources, tmp_path, monkeypatch):
    said = '[ "$1" = --version ] && exit 0; echo "note: ABI" >&2; echo "k.c:1: error: no" >&2; exit 1'
    fake_compiler(tmp_path, monkeypatch, said)
    with pytest.raises(KernelError, match=r"gcc cannot make them \(k.c:1: error: no\)"):
        compiled(sources)


def test_elsewhere(sources, monkeypatch):
    monkeypatch.setattr(module.sys, "platform", "win32")
    with pytest.raises(KernelError, match="on Linux only"):
        compiled(sources)


def test_what_was_compiled_must_have_the_functions(made, sources, tmp_path):
    other = Sources("other", sources.files, (), (), {"thrice": (c_int, [c_int])})
    with pytest.raises(KernelError, match="thrice"):
        compiled(other)
