"""inference: a graph as it is used once training is over.

In: a graph. Out: the same graph, where batch normalisation normalises by its running statistics, dropout drops nothing
and a call changes no array: the updates are gone, and with them what only they needed.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.ir import Node
from graphc.language.graph import Graph, check_graph
from graphc.ops.composite import DROPOUT
from graphc.ops.normalization import BATCH_NORM, after_training
from graphc.simplification.rewrite import like, rewrite


def inference(graph: Graph) -> Graph:
    """The graph after training: `gc.compile(gc.inference(g))(image=…, **state)`.

    It takes the same params and inputs. It is made of the graph that describes the network, not of its training step.
    """
    check_graph(graph)
    return replace(rewrite(graph, _after_training), updates={})


def _after_training(node: Node) -> Node:
    if node.op is BATCH_NORM:
        return like(after_training(node), node)
    return node.inputs[0] if node.op is DROPOUT else node
