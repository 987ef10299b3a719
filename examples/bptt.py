"""Backpropagation through time, step by step: forward, cost, backward, update.

    forward     from left to right: h(t), o(t) for t = 1 … τ
    cost        J and its derivatives
    backward    from right to left: the adjoint of h(t) from that of h(t+1)
    update      W ← W − η ∂J/∂W, and so for every param

`gc.grad` writes the backward equations. They are again equations with a state, `adjoint_h`, that reads t + 1 where h
reads t − 1: print the graph to see them. Unrolling first and differentiating then gives the same numbers.
"""

import numpy as np

import graphc as gc


def network(inputs: int = 3, hidden: int = 8, outputs: int = 3) -> gc.Graph:
    """Forward and cost: an Elman network."""
    g = gc.Graph("bptt")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (inputs,), over=(t, n))
    y = g.input("y", (), over=(t, n), dtype="int32")
    U, W, b = g.param("U", (hidden, inputs)), g.param("W", (hidden, hidden)), g.param("b", (hidden,))
    V, c = g.param("V", (outputs, hidden)), g.param("c", (outputs,))

    h = g.state("h", (hidden,), over=(t, n))
    h[t] = gc.tanh(U @ x[t] + W @ h[t - 1] + b)
    o = V @ h[t] + c

    g.output("loss", gc.mean(gc.sum(gc.cross_entropy(o, y), over=t), over=n))
    return g


def graph(rate: float = 0.1) -> gc.Graph:
    """One step of gradient descent: the network, its gradient, and the update of its params."""
    g = gc.grad(network(), "loss")
    for name in g.params:
        g.update(name, g.value(name) - rate * g.value(f"grad_{name}"))
    return g


def data(seed: int = 0, T: int = 6, N: int = 32) -> dict[str, np.ndarray]:
    """Say again what was heard one step ago (and symbol 0 before that)."""
    symbols = np.random.default_rng(seed).integers(0, 3, (T, N))
    said = np.concatenate([np.zeros((1, N)), symbols[:-1]])
    return {"x": np.eye(3, dtype=np.float32)[symbols], "y": said.astype(np.int32)}


def main() -> None:
    g = graph()
    print(g)
    arrays, run = gc.initialize(g), gc.compile(g)
    for k in range(401):
        loss = run(**data(k), **arrays)["loss"]  # updates the params in `arrays`
        if k % 100 == 0:
            print(f"step {k:3}: loss {loss:.3f}")

    folded = gc.unroll(gc.grad(network(), "loss"), t=6)
    unrolled = gc.grad(gc.unroll(network(), t=6), "loss")
    one, other = (gc.compile(v)(**data(), **arrays)["grad_W"] for v in (folded, unrolled))
    print("unroll(grad) against grad(unroll), the largest difference:", np.abs(one - other).max())
    gc.draw(gc.unroll(gc.grad(network(), "loss"), t=3)).save("bptt.svg")


if __name__ == "__main__":
    main()
