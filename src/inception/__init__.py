"""GoogLeNet and its family, from a folder of images to a classifier that answers."""

__version__ = "0.1.0"
