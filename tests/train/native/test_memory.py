"""Memory kept between steps, and given back at the end."""

import platform
import subprocess
import sys

import pytest
import torch

from inception.train.native.memory import kept_memory

# In a process of its own: what a test worker's own threads have taken does not disturb it.
PROGRAM = """
import resource
import torch
from inception.train.native.memory import kept_memory

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        torch.ones(48 << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

start = resident()
with kept_memory():
    first = faults(1)
    faults(20)  # until what lies between the blocks no longer keeps them from being used again
    inside, held = faults(4), resident() - start
after, left = faults(4), resident() - start
print(first, inside, after, held, left)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_pages_are_asked_for_once_and_given_back():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    first, inside, after, held, left = map(int, done.stdout.split())
    assert first > 1000  # 48 MB in pages of 4 kB, or in fewer, larger ones
    assert inside < first / 10
    assert after > first
    assert left < held / 2


def test_elsewhere_it_does_nothing(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    with kept_memory():
        assert torch.ones(3).sum() == 3
