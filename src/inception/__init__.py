"""GoogLeNet and its family, from a folder of images to a classifier that answers.

    import inception

    result = inception.train_bundle(inception.TrainConfig(data="flowers/", output="runs/flowers"))
    classifier = inception.load(result.bundle)
    print(inception.evaluate_bundle(classifier, "flowers/").evaluation.top1)
    print(classifier.predict("rose.jpg")[0].top)

Everything is imported on first use, so that `import inception` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inception.data.check import check_dataset as check_dataset
    from inception.data.preprocess import Preprocess as Preprocess
    from inception.data.sources import open_dataset as open_dataset
    from inception.errors import InceptionError as InceptionError
    from inception.evaluate.measure import evaluate_bundle as evaluate_bundle
    from inception.nets.output import Output as Output
    from inception.nets.registry import list_models as list_models
    from inception.runtime.classifier import Classifier as Classifier
    from inception.runtime.loading import load as load
    from inception.train.config import TrainConfig as TrainConfig
    from inception.train.run import train_bundle as train_bundle
    from inception.weights.bundle import load_bundle as load_bundle
    from inception.weights.bundle import save_bundle as save_bundle
    from inception.weights.importer import import_weights as import_weights
    from inception.weights.pretrained import create_model as create_model

__version__ = "0.1.0"

# Public name -> (module, name there).
_PUBLIC = {
    "Classifier": ("inception.runtime.classifier", "Classifier"),
    "InceptionError": ("inception.errors", "InceptionError"),
    "Output": ("inception.nets.output", "Output"),
    "Preprocess": ("inception.data.preprocess", "Preprocess"),
    "TrainConfig": ("inception.train.config", "TrainConfig"),
    "check_dataset": ("inception.data.check", "check_dataset"),
    "create_model": ("inception.weights.pretrained", "create_model"),
    "evaluate_bundle": ("inception.evaluate.measure", "evaluate_bundle"),
    "import_weights": ("inception.weights.importer", "import_weights"),
    "list_models": ("inception.nets.registry", "list_models"),
    "load": ("inception.runtime.loading", "load"),
    "load_bundle": ("inception.weights.bundle", "load_bundle"),
    "open_dataset": ("inception.data.sources", "open_dataset"),
    "save_bundle": ("inception.weights.bundle", "save_bundle"),
    "train_bundle": ("inception.train.run", "train_bundle"),
}
__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604 - the keys are strings


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'inception' has no attribute '{name}'")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
