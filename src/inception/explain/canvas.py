"""Pictures as parameters: a Fourier spectrum in decorrelated colours, which gradients fill evenly.

Source: Olah et al. 2017, "Feature Visualization" (Distill), "Preconditioning and Parameterization"; the
constants are Lucid's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# Square root of the colour covariance of ImageNet's pixels (rows: R, G, B), as in Lucid.
_COLOUR_SQRT = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
_INITIAL_DEVIATION = 0.01


def colour_matrix() -> Tensor:
    """float32 3 x 3: from decorrelated colours to RGB, its longest column of length 1."""
    matrix = torch.tensor(_COLOUR_SQRT)
    normalised: Tensor = matrix / matrix.norm(dim=0).max()
    return normalised


def frequency_scale(height: int, width: int) -> Tensor:
    """float32 H x (W // 2 + 1): 1 / frequency, finite at 0, times sqrt(H * W) (the inverse transform's)."""
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    frequency = (rows.square() + columns.square()).sqrt().clamp(min=1.0 / max(height, width))
    scale: Tensor = (height * width) ** 0.5 / frequency
    return scale


class Canvas:
    """N pictures that an optimiser can paint.

    Attributes:
        parameters: what the optimiser changes.

    Args:
        seeds: one for each picture; equal seeds start from equal noise, whatever else is on the canvas.
        channels: 3 for RGB, 1 for grey.
        height, width: pixels.
        fourier: parameters are a spectrum scaled by 1 / frequency; False: the pixels themselves.
        decorrelate: parameters are in decorrelated colours (RGB only).
        shared: add a spectrum that all pictures have in common, so that they stay alike.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        channels: int,
        height: int,
        width: int,
        *,
        fourier: bool = True,
        decorrelate: bool = True,
        shared: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self._size = (height, width)
        self._scale = frequency_scale(height, width).to(device) if fourier else None
        self._colours = colour_matrix().to(device) if decorrelate and channels == 3 else None
        shape = (channels, height, width // 2 + 1, 2) if fourier else (channels, height, width)
        self.own = torch.stack([_noise(seed, shape) for seed in seeds]).to(device).requires_grad_()
        self.parameters = [self.own]
        self.common: Tensor | None = None
        if shared:
            self.common = _noise(seeds[0], shape)[None].to(device).requires_grad_()
            self.parameters.append(self.common)

    def pixels(self) -> Tensor:
        """float32 N x channels x H x W in 0..1, differentiable in the parameters."""
        values = self.own if self.common is None else self.own + self.common
        if self._scale is not None:
            spectrum = torch.view_as_complex(values) * self._scale
            # The quarter is Lucid's: it puts the first pictures into the sigmoid's steep part.
            values = torch.fft.irfft2(spectrum, s=self._size) / 4.0
        if self._colours is not None:
            values = torch.einsum("rc,nchw->nrhw", self._colours, values)
        return torch.sigmoid(values)


def _noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * _INITIAL_DEVIATION
