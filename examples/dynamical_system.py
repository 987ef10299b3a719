"""A dynamical system is a recurrent network.

By itself, and driven by a signal x(t):

    h(t) = f(h(t−1); θ)
    h(t) = f(h(t−1), x(t); θ)

The parameters θ are found from observed trajectories y(t).
"""

import numpy as np

import graphc as gc


def autonomous(size: int = 2) -> gc.Graph:
    """f(h; W, b) = tanh(W h + b), from an initial state that is given."""
    g = gc.Graph("autonomous")
    t, n = g.axis("t"), g.axis("n")
    y = g.input("y", (size,), over=(t, n))
    W, b = g.param("W", (size, size)), g.param("b", (size,))

    h = g.state("h", (size,), over=(t, n), initial=g.input("h0", (size,), over=n))
    h[t] = gc.tanh(W @ h[t - 1] + b)

    g.output("h", h)
    g.output("loss", gc.mean(gc.sum((h - y) ** 2), over=(t, n)))
    return g


def driven(size: int = 2, inputs: int = 1) -> gc.Graph:
    """f(h, x; W, U, b) = tanh(W h + U x + b): the state carries the whole past of the signal."""
    g = gc.Graph("driven")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (inputs,), over=(t, n))
    y = g.input("y", (size,), over=(t, n))
    W, U, b = g.param("W", (size, size)), g.param("U", (size, inputs)), g.param("b", (size,))

    h = g.state("h", (size,), over=(t, n), initial=g.input("h0", (size,), over=n))
    h[t] = gc.tanh(W @ h[t - 1] + U @ x + b)

    g.output("h", h)
    g.output("loss", gc.mean(gc.sum((h - y) ** 2), over=(t, n)))
    return g


graph = driven


def data(seed: int = 0, T: int = 20, N: int = 16) -> dict[str, np.ndarray]:
    """A damped oscillator, kicked at random."""
    rng = np.random.default_rng(seed)
    turn = 0.95 * np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    x = (rng.random((T, N, 1)) < 0.2) * rng.normal(size=(T, N, 1)) * 0.5
    h0 = rng.normal(size=(N, 2)) * 0.3
    y, h = np.zeros((T, N, 2)), h0
    for k in range(T):
        y[k] = h = np.tanh(h @ turn.T + x[k] * [1, 0])
    return {"x": x.astype(np.float32), "y": y.astype(np.float32), "h0": h0.astype(np.float32)}


def main() -> None:
    g = graph()
    step = gc.training_step(g, "loss", gc.optim.Adam(lr=0.02))
    arrays, run = gc.initialize(step), gc.compile(step)
    for k in range(301):
        loss = run(**data(k), **arrays)["loss"]
        if k % 100 == 0:
            print(f"step {k:3}: loss {loss:.5f}")
    print("W, which was 0.95 times a rotation by 0.5:", *np.round(arrays["W"], 2), sep="\n")
    gc.draw(gc.unroll(g, t=4)).save("dynamical_system.svg")


if __name__ == "__main__":
    main()
