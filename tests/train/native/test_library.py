"""Kernels that are compiled, kept, made again, or honestly not there."""

import os
import stat

import pytest

from inception.train.native import library as module
from inception.train.native.library import KernelError, library, reason_without

needs_compiler = pytest.mark.skipif(bool(reason_without()), reason=f"no kernels here: {reason_without()}")


@pytest.fixture(autouse=True)
def afresh(monkeypatch, tmp_path):
    monkeypatch.setenv("INCEPTION_CACHE", str(tmp_path / "cache"))
    module._outcome.cache_clear()
    yield
    module._outcome.cache_clear()


def fake_compiler(folder, monkeypatch, script):
    path = folder / "gcc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@needs_compiler
def test_compiled_once_and_kept(tmp_path, monkeypatch):
    library()
    kept = list((tmp_path / "cache" / "kernels").iterdir())
    assert len(kept) == 1
    module._outcome.cache_clear()
    monkeypatch.setattr(module, "_compile", lambda *_: pytest.fail("compiled twice"))
    library()


@needs_compiler
def test_a_damaged_file_is_made_again(tmp_path):
    library()
    (kept,) = (tmp_path / "cache" / "kernels").iterdir()
    kept.unlink()
    kept.write_bytes(b"not a library")
    module._outcome.cache_clear()
    library()
    assert kept.read_bytes()[:4] == b"\x7fELF"


@needs_compiler
def test_without_a_place_to_keep_it(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INCEPTION_CACHE", str(tmp_path / "file" / "below"))
    assert library().norm_relu_forward


def test_no_compiler(monkeypatch):
    monkeypatch.setattr(module, "COMPILERS", ("no-such-compiler",))
    with pytest.raises(KernelError, match="no C compiler"):
        library()
    assert reason_without() == "there is no C compiler (gcc)"


def test_a_compiler_that_fails_says_why_in_one_line(tmp_path, monkeypatch):
    fake_compiler(tmp_path, monkeypatch, '[ "$1" = --version ] && exit 0; echo "bad flag\nmore" >&2; exit 1')
    assert "bad flag" in reason_without()
    assert "\n" not in reason_without()


def test_warnings_are_not_the_reason(tmp_path, monkeypatch):
    said = '[ "$1" = --version ] && exit 0; echo "note: ABI" >&2; echo "k.c:1: error: no" >&2; exit 1'
    fake_compiler(tmp_path, monkeypatch, said)
    assert reason_without().endswith("gcc cannot make them (k.c:1: error: no)")


@needs_compiler
def test_what_others_can_write_is_not_loaded(tmp_path, monkeypatch):
    library()
    (kept,) = (tmp_path / "cache" / "kernels").iterdir()
    kept.chmod(0o666)
    made = []
    compile_as_before = module._compile
    monkeypatch.setattr(module, "_compile", lambda *args: made.append(compile_as_before(*args)))
    module._outcome.cache_clear()
    library()
    assert len(made) == 1


@needs_compiler
def test_without_a_home(monkeypatch):
    def homeless(name):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(module, "cache_folder", homeless)
    assert library().max_pool_forward


@needs_compiler
def test_another_openmp_than_pytorchs_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module.torch, "__file__", str(tmp_path / "torch" / "__init__.py"))
    assert "OpenMP" in reason_without()


def test_elsewhere(monkeypatch):
    assert reason_without("cuda") == "they are for CPUs, and the run is on cuda"
    monkeypatch.setattr(module.sys, "platform", "win32")
    assert reason_without() == "they are for Linux"


def test_what_was_compiled_must_have_the_functions(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SOURCES", (tmp_path / "other.c",))
    (tmp_path / "other.c").write_text("int nothing;\n")
    assert "norm_relu_forward" in reason_without() or "no C compiler" in reason_without()
