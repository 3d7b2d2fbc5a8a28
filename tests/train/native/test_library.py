"""The training kernels are there, or the reason why not."""

import pytest

from inception.native import compiler
from inception.train.native import library as module
from inception.train.native.library import KernelError, library, reason_without


@pytest.fixture(autouse=True)
def afresh():
    module._outcome.cache_clear()
    yield
    module._outcome.cache_clear()


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("INCEPTION_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "COMPILERS", ("no-such-compiler",))
    with pytest.raises(KernelError, match="no C compiler"):
        library()
    assert reason_without() == "there is no C compiler (gcc)"


@pytest.mark.skipif(bool(reason_without()), reason=f"no kernels here: {reason_without()}")
def test_another_openmp_than_pytorchs_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module.torch, "__file__", str(tmp_path / "torch" / "__init__.py"))
    assert "OpenMP" in reason_without()


def test_elsewhere():
    assert reason_without("cuda") == "they are for CPUs, and the run is on cuda"
