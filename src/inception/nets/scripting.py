"""What `torch.jit.script` compiles: a network's graph in place of its Python."""

import torch
from torch import nn

from inception.nets.output import Output


def scriptable(network: nn.Module) -> torch.fx.GraphModule:
    """The graph of `network(x)` in its present mode, over the same parameters and buffers.

    In training mode it returns a plain tuple (logits, (aux, …)) where the network returns an `Output`:
    TorchScript has no tuples of any length.
    """
    traced = torch.fx.symbolic_trace(network)
    for node in traced.graph.nodes:
        if node.op == "placeholder" and not node.users:
            traced.graph.erase_node(node)
        if node.op == "output":
            node.type = None  # the network's own annotation names every form of its result
            result = node.args[0]
            if isinstance(result, torch.fx.Node) and result.target is Output:
                node.args = (result.args,)
                traced.graph.erase_node(result)
    traced.recompile()
    return traced
