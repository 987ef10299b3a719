"""The training problem: sequences of different lengths, one number to make small.

    J = 1/N Σ_n Σ_{t ≤ τ_n} d(ỹ_n(t), y_n(t))  →  min over U, W, V, b, c

τ_n is the length of sequence n, and d the Euclidean distance or the cross-entropy. The axis t has another length for
each n: steps past τ_n do not exist, so no sum needs a mask.
"""

import numpy as np

import graphc as gc


def graph(distance: str = "cross_entropy", inputs: int = 1, hidden: int = 16, classes: int = 2) -> gc.Graph:
    g = gc.Graph("training_problem")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32"))
    x = g.input("x", (inputs,), over=(t, n))
    y = g.input("y", (), over=(t, n), dtype="int32")
    U, W, b = g.param("U", (hidden, inputs)), g.param("W", (hidden, hidden)), g.param("b", (hidden,))
    V, c = g.param("V", (classes, hidden)), g.param("c", (classes,))

    h = g.state("h", (hidden,), over=(t, n))
    h[t] = gc.tanh(U @ x[t] + W @ h[t - 1] + b)
    o = V @ h[t] + c
    p = gc.softmax(o)

    if distance == "cross_entropy":
        d = gc.cross_entropy(o, y)
    else:
        d = gc.sqrt(gc.sum((p - gc.one_hot(y, classes)) ** 2))
    J = gc.mean(gc.sum(d, over=t), over=n)

    g.output("p", p)
    g.output("loss", J)
    return g


def data(seed: int = 0, T: int = 12, N: int = 64) -> dict[str, np.ndarray]:
    """Has the sum of the signal so far been positive? Sequences of 1 to T steps; the arrays are padded."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, T + 1, N)
    lengths[0] = T
    x = rng.normal(size=(T, N, 1))
    return {
        "x": x.astype(np.float32),
        "y": (np.cumsum(x[..., 0], axis=0) > 0).astype(np.int32),
        "lengths": lengths.astype(np.int32),
    }


def main() -> None:
    for distance in ("cross_entropy", "euclidean"):
        g = graph(distance)
        step = gc.training_step(g, "loss", gc.optim.Adam(lr=0.01))
        arrays, run = gc.initialize(step), gc.compile(step)
        losses = [float(run(**data(k), **arrays)["loss"]) for k in range(400)]
        print(f"{distance:13}: J {losses[0]:.3f} → {losses[-1]:.3f}")
    gc.draw(g).save("training_problem.svg")


if __name__ == "__main__":
    main()
