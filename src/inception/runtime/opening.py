"""From a plan and its files to the engine that answers."""

from inception.runtime.engines import OnnxRunner, OpenVinoRunner, Runner
from inception.runtime.native.runner import NativeRunner
from inception.runtime.plan import Plan


def open_engine(plan: Plan, files: dict[str, bytes]) -> Runner:
    """The engine of a plan that keeps its network in files.

    Raises MissingEngineError when its package, or for the native engine a compiler, is not there.
    """
    if plan.engine == "native":
        return NativeRunner(files["network.json"], files["network.weights"], plan)
    if plan.engine == "openvino":
        return OpenVinoRunner(files["model.xml"], files["model.bin"], plan)
    return OnnxRunner(files["model.onnx"], plan)
