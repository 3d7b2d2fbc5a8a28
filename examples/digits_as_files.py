"""Write ten of scikit-learn's handwritten digits, one of each class, as PNG files: `… FOLDER`."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
digits = load_digits()
for digit in range(10):
    picture = digits.images[np.flatnonzero(digits.target == digit)[-1]]
    Image.fromarray(np.round(picture * 255 / 16).astype(np.uint8)).save(folder / f"a_{digit}.png")
