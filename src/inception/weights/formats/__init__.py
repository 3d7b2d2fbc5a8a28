"""Readers of other tools' weight files: from bytes to named tensors, nothing executed."""
