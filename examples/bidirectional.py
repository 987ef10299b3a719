"""A bidirectional network: one state reads the past, another the future, and the output reads both.

    h→(t) = f(U→ x(t) + W→ h→(t−1) + b→)
    h←(t) = f(U← x(t) + W← h←(t+1) + b←)
    o(t) = V [h→(t), h←(t)] + c

The library has it as `gc.cells.bidirectional`, for any cell.
"""

import numpy as np

import graphc as gc


def graph(inputs: int = 1, hidden: int = 8, classes: int = 2) -> gc.Graph:
    g = gc.Graph("bidirectional")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (inputs,), over=(t, n))
    y = g.input("y", (), over=(t, n), dtype="int32")
    U_f, W_f, b_f = g.param("U_f", (hidden, inputs)), g.param("W_f", (hidden, hidden)), g.param("b_f", (hidden,))
    U_b, W_b, b_b = g.param("U_b", (hidden, inputs)), g.param("W_b", (hidden, hidden)), g.param("b_b", (hidden,))
    V, c = g.param("V", (classes, 2 * hidden)), g.param("c", (classes,))

    forward = g.state("forward", (hidden,), over=(t, n))
    backward = g.state("backward", (hidden,), over=(t, n))
    forward[t] = gc.tanh(U_f @ x[t] + W_f @ forward[t - 1] + b_f)
    backward[t] = gc.tanh(U_b @ x[t] + W_b @ backward[t + 1] + b_b)
    o = V @ gc.concat([forward[t], backward[t]]) + c

    g.output("p", gc.softmax(o))
    g.output("loss", gc.mean(gc.cross_entropy(o, y), over=(t, n)))
    return g


def data(seed: int = 0, T: int = 12, N: int = 64) -> dict[str, np.ndarray]:
    """Is the sum of what came before larger than the sum of what comes after?"""
    x = np.random.default_rng(seed).normal(size=(T, N, 1))
    before = np.cumsum(x, axis=0) - x
    after = x.sum(axis=0) - before - x
    return {"x": x.astype(np.float32), "y": (before > after)[..., 0].astype(np.int32)}


def main() -> None:
    g = graph()
    step = gc.training_step(g, "loss", gc.optim.Adam(lr=0.01))
    arrays, run = gc.initialize(step), gc.compile(step)
    for k in range(401):
        loss = run(**data(k), **arrays)["loss"]
        if k % 100 == 0:
            print(f"step {k:3}: loss {loss:.3f}")
    gc.draw(gc.unroll(g, t=4)).save("bidirectional.svg")


if __name__ == "__main__":
    main()
