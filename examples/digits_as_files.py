"""Write one test image of each of scikit-learn's handwritten digits, none of them trained on: `… FOLDER`."""

import sys
from pathlib import Path

import inception

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
digits = inception.open_dataset("digits")
first = {digits.labels[sample.label]: sample for sample in reversed(digits.split("test"))}
for label, sample in first.items():
    (folder / f"a_{label}.png").write_bytes(digits.read(sample))
