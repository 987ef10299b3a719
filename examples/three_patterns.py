"""The three patterns of recurrence: where the cycle is, and when there is an output.

    1. an output at each step, hidden → hidden      h(t) = tanh(U x(t) + W h(t−1) + b)     o(t) = V h(t) + c
    2. an output at each step, output → hidden      h(t) = tanh(U x(t) + W o(t−1) + b)     o(t) = V h(t) + c
    3. one output at the end, hidden → hidden       h(t) = tanh(U x(t) + W h(t−1) + b)     o = V h(τ) + c

The first and the third are Elman's network, the second is Jordan's.
"""

import numpy as np

import graphc as gc


def hidden_to_hidden(inputs: int = 2, hidden: int = 8, outputs: int = 2) -> gc.Graph:
    g = gc.Graph("hidden_to_hidden")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (inputs,), over=(t, n))
    y = g.input("y", (), over=(t, n), dtype="int32")
    U, W, b = g.param("U", (hidden, inputs)), g.param("W", (hidden, hidden)), g.param("b", (hidden,))
    V, c = g.param("V", (outputs, hidden)), g.param("c", (outputs,))

    h = g.state("h", (hidden,), over=(t, n))
    h[t] = gc.tanh(U @ x[t] + W @ h[t - 1] + b)
    o = V @ h[t] + c

    g.output("o", o)
    g.output("loss", gc.mean(gc.cross_entropy(o, y), over=(t, n)))
    return g


def output_to_hidden(inputs: int = 2, hidden: int = 8, outputs: int = 2) -> gc.Graph:
    g = gc.Graph("output_to_hidden")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (inputs,), over=(t, n))
    y = g.input("y", (), over=(t, n), dtype="int32")
    U, W, b = g.param("U", (hidden, inputs)), g.param("W", (hidden, outputs)), g.param("b", (hidden,))
    V, c = g.param("V", (outputs, hidden)), g.param("c", (outputs,))

    o = g.state("o", (outputs,), over=(t, n))
    h = gc.tanh(U @ x[t] + W @ o[t - 1] + b)
    o[t] = V @ h + c

    g.output("o", o)
    g.output("loss", gc.mean(gc.cross_entropy(o, y), over=(t, n)))
    return g


def one_output(inputs: int = 2, hidden: int = 8, outputs: int = 2) -> gc.Graph:
    g = gc.Graph("one_output")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (inputs,), over=(t, n))
    y = g.input("y", (), over=(t, n), dtype="int32")
    U, W, b = g.param("U", (hidden, inputs)), g.param("W", (hidden, hidden)), g.param("b", (hidden,))
    V, c = g.param("V", (outputs, hidden)), g.param("c", (outputs,))

    h = g.state("h", (hidden,), over=(t, n))
    h[t] = gc.tanh(U @ x[t] + W @ h[t - 1] + b)
    o = V @ h[t.last] + c

    g.output("o", o)
    g.output("loss", gc.mean(gc.cross_entropy(o, y[t.last]), over=n))
    return g


graph = hidden_to_hidden


def data(seed: int = 0, T: int = 8, N: int = 64) -> dict[str, np.ndarray]:
    """Two streams of bits; the label is whether the first has shown more ones than the second so far."""
    x = np.random.default_rng(seed).integers(0, 2, (T, N, 2))
    ahead = np.cumsum(x[..., 0] - x[..., 1], axis=0) > 0
    return {"x": x.astype(np.float32), "y": ahead.astype(np.int32)}


def main() -> None:
    for pattern in (hidden_to_hidden, output_to_hidden, one_output):
        g = pattern()
        step = gc.training_step(g, "loss", gc.optim.Adam(lr=0.01))
        arrays, run = gc.initialize(step), gc.compile(step)
        losses = [float(run(**data(k), **arrays)["loss"]) for k in range(400)]
        print(f"{g.name:16}: loss {losses[0]:.3f} → {losses[-1]:.3f}")
        gc.draw(gc.unroll(g, t=4)).save(f"{g.name}.svg")


if __name__ == "__main__":
    main()
