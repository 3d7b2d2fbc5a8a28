"""Which device and which precision: chosen by themselves, or as asked."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from inception.errors import UsageError, first_line
from inception.nets.network import Network

Precision = Literal["float32", "bfloat16"]


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`; `auto` takes CUDA, else MPS, else the CPU.

    Raises UsageError when the device does not exist here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = first_line(error)
        raise UsageError(f"device '{name}' cannot be used here ({reason}); try --device cpu") from error
    return device


def choose_precision(name: str, device: torch.device) -> Precision:
    """`float32` or `bfloat16` as asked; `auto` takes bfloat16 where the hardware multiplies in it."""
    if name == "auto":
        return "bfloat16" if _has_fast_bfloat16(device) else "float32"
    if name not in ("float32", "bfloat16"):
        raise UsageError(f"precision must be auto, float32 or bfloat16, not {name!r}")
    return "bfloat16" if name == "bfloat16" else "float32"


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # PyTorch asks oneDNN's question: AVX-512 with bfloat16 dot products, or AMX.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def place(network: Network, device: torch.device) -> Network:
    """Move a network to a device, its weights laid out channels last (faster on CPU and GPU alike)."""
    network.to(device)
    network.to(memory_format=torch.channels_last)
    return network


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Context in which convolutions and linear layers run in `precision`."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
