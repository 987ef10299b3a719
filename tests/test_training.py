"""Optimisers, training steps and fit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.checkpoint import read
from graphc.errors import ArgumentError, DefinitionError, DivergenceError
from tests.cuda_emulated import EmulatedDevice


def regression(dtype: str = "float64") -> gc.Graph:
    g = gc.Graph("regression", dtype=dtype)
    t, n = g.axis("t"), g.axis("n")
    x, y = g.input("x", (3,), over=(t, n)), g.input("y", (2,), over=(n,))
    h = g.state("h", (4,), over=(t, n))
    h[t] = gc.tanh(g.param("U", (4, 3)) @ x + g.param("W", (4, 4)) @ h[t - 1] + g.param("b", (4,)))
    g.output("loss", gc.mean(gc.sum(gc.square(g.param("V", (2, 4)) @ h[t.last] - y)), over=n))
    return g


def batch(seed: int = 0, dtype: str = "float64") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(5, 6, 3)).astype(dtype), "y": rng.normal(size=(6, 2)).astype(dtype)}


OPTIMIZERS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "sgd": (gc.optim.SGD(0.1, weight_decay=0.02), lambda torch: (torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.02})),
    "momentum": (
        gc.optim.Momentum(0.05, momentum=0.8, weight_decay=0.01),
        lambda torch: (torch.optim.SGD, {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.01}),
    ),
    "nesterov": (
        gc.optim.Momentum(0.05, momentum=0.8, weight_decay=0.01, nesterov=True),
        lambda torch: (torch.optim.SGD, {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.01, "nesterov": True}),
    ),
    "rmsprop": (
        gc.optim.RMSprop(0.03, beta=0.9, eps=1e-6, weight_decay=0.01),
        lambda torch: (torch.optim.RMSprop, {"lr": 0.03, "alpha": 0.9, "eps": 1e-6, "weight_decay": 0.01}),
    ),
    "adam": (
        gc.optim.Adam(0.03, beta1=0.8, beta2=0.95, eps=1e-7, weight_decay=0.01),
        lambda torch: (torch.optim.Adam, {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-7, "weight_decay": 0.01}),
    ),
    "adamw": (
        gc.optim.AdamW(0.03, weight_decay=0.1),
        lambda torch: (torch.optim.AdamW, {"lr": 0.03, "weight_decay": 0.1}),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip", [None, 0.5])
def test_optimizers_move_as_in_pytorch(name: str, clip: float | None) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = OPTIMIZERS[name]
    ours = type(ours)(**{**vars(ours), "clip": clip})
    g = regression()
    step = gc.training_step(g, "loss", ours)
    state = gc.initialize(step, seed=3)
    params = {k: torch.tensor(state[k].copy(), requires_grad=True) for k in g.params}
    kind, settings = theirs(torch)
    optimizer = kind(list(params.values()), **settings)
    run = gc.compile(step)
    for k in range(6):
        data = batch(k)
        loss = run(**data, **state)["loss"]
        x, y = torch.tensor(data["x"]), torch.tensor(data["y"])
        h = torch.zeros(6, 4, dtype=torch.float64)
        for frame in x:
            h = torch.tanh(frame @ params["U"].T + h @ params["W"].T + params["b"])
        expected = ((h @ params["V"].T - y) ** 2).sum(dim=1).mean()
        optimizer.zero_grad()
        expected.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(list(params.values()), clip)
        optimizer.step()
        np.testing.assert_allclose(loss, expected.detach().numpy(), rtol=1e-10)
    for key, value in params.items():
        np.testing.assert_allclose(state[key], value.detach().numpy(), rtol=1e-9, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_compiled_step_is_the_interpreted_step(name: str) -> None:
    step = gc.training_step(regression(), "loss", OPTIMIZERS[name][0])
    one, other = gc.initialize(step, seed=1), gc.initialize(step, seed=1)
    run = gc.compile(step)
    for k in range(3):
        gc.interpret(step, **batch(k), **one)
        run(**batch(k), **other)
    assert int(one["step"]) == int(other["step"]) == 3
    for key, value in one.items():
        np.testing.assert_allclose(other[key], value, rtol=1e-11, atol=1e-13, err_msg=key)


def test_the_graph_itself_is_left_alone() -> None:
    g = regression()
    before = str(g)
    step = gc.training_step(g, "loss", gc.optim.Adam())
    assert str(g) == before
    assert set(step.outputs) == set(g.outputs)
    assert not step.params["mean_W"].trainable


def test_only_the_named_params_move() -> None:
    step = gc.training_step(regression(), "loss", gc.optim.SGD(0.1), wrt=["W"])
    state = gc.initialize(step, seed=0)
    before = {k: v.copy() for k, v in state.items()}
    gc.compile(step)(**batch(), **state)
    assert {k for k in state if not np.array_equal(state[k], before[k])} == {"W", "step"}


def test_inputs_do_not_train() -> None:
    with pytest.raises(DefinitionError, match="'x' is an input"):
        gc.training_step(regression(), "loss", gc.optim.SGD(0.1), wrt=["x"])


SCHEDULES: dict[str, tuple[Any, Callable[[int], float]]] = {
    "constant": (gc.optim.constant(0.3), lambda k: 0.3),
    "exponential": (gc.optim.exponential_decay(0.2, 0.5, 4), lambda k: 0.2 * 0.5 ** (k / 4)),
    "step": (gc.optim.step_decay(0.2, 0.1, 3), lambda k: 0.2 * 0.1 ** (k // 3)),
    "cosine": (
        gc.optim.cosine(0.2, 10, warmup=2, final=0.02),
        lambda k: 0.2 * (k + 1) / 2 if k < 2 else 0.02 + 0.09 * (1 + np.cos(np.pi * min((k - 2) / 8, 1))),
    ),
    "warmup": (gc.optim.warmup(0.4, 5), lambda k: 0.4 * min((k + 1) / 5, 1)),
    "no warmup": (gc.optim.warmup(0.4, 0), lambda k: 0.4),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str) -> None:
    """A param whose gradient is 1 shows the rate of each step."""
    schedule, expected = SCHEDULES[name]
    g = gc.Graph("line", dtype="float64")
    g.output("loss", g.param("w", ()) * 1.0)
    step = gc.training_step(g, "loss", gc.optim.SGD(schedule))
    state, run = gc.initialize(step), gc.compile(step)
    for k in range(12):
        before = float(state["w"])
        run(**state)
        assert before - float(state["w"]) == pytest.approx(expected(k), rel=1e-9)


def bowl(dtype: str = "float32") -> gc.Graph:
    """The square of a param's norm: its gradient is twice the param."""
    g = gc.Graph("bowl", dtype=dtype)
    g.output("loss", gc.sum(gc.square(g.param("w", (3,), init=1.0))))
    return g


@pytest.mark.parametrize("kind", [gc.optim.SGD, gc.optim.Momentum, gc.optim.Adam])
@pytest.mark.parametrize("warmed", [False, True])
def test_the_rate_may_be_an_input(kind: Any, warmed: bool) -> None:
    given, fixed = bowl(), bowl()
    lr = given.input("lr", ())
    one = gc.training_step(given, "loss", kind(gc.optim.warmup(lr, 2) if warmed else lr))
    other = gc.training_step(fixed, "loss", kind(gc.optim.warmup(0.25, 2) if warmed else 0.25))
    state, expected = gc.initialize(one), gc.initialize(other)
    run, run_other = gc.compile(one), gc.compile(other)
    for _ in range(3):
        run(lr=0.25, **state)
        run_other(**expected)
    assert np.ptp(expected["w"]) == 0
    assert expected["w"][0] != 1
    np.testing.assert_allclose(state["w"], expected["w"], rtol=1e-6)


def test_a_rate_of_another_graph_is_refused() -> None:
    lr = gc.Graph("elsewhere").input("lr", ())
    with pytest.raises(DefinitionError, match="another graph"):
        gc.training_step(bowl(), "loss", gc.optim.SGD(lr))


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_params_of_two_dtypes_move_together(name: str, clip: float | None) -> None:
    optimizer = OPTIMIZERS[name][0]
    g = gc.Graph("two")
    w, v = g.param("w", (3,), init=0.5), g.param("v", (3,), init=0.5, dtype="float64")
    g.output("loss", gc.sum(gc.square(w)) + gc.cast(gc.sum(gc.square(v)), "float32"))
    step = gc.training_step(g, "loss", type(optimizer)(**{**vars(optimizer), "clip": clip}))
    state, run = gc.initialize(step), gc.compile(step)
    for _ in range(4):
        run(**state)
    assert (state["v"] < 0.5).all()
    np.testing.assert_allclose(state["w"], state["v"], rtol=1e-6)  # float32 loses no more than its own digits


def test_a_graph_may_have_a_step_of_its_own() -> None:
    g = gc.Graph("noisy")
    w, count = g.param("w", (50,), init=1.0), g.input("step", (), dtype="int32")
    g.output("loss", gc.sum(gc.dropout(w, 0.5, count)))
    step = gc.training_step(g, "loss", gc.optim.SGD(1.0))
    state = gc.initialize(step)
    gc.compile(step)(step=7, **state)
    assert set(state) == {"w", "step_loss"}
    assert int(state["step_loss"]) == 1
    assert 5 < (state["w"] == 1).sum() < 45


def test_two_losses_train_two_params_in_one_step() -> None:
    g = gc.Graph("game")
    a, b = g.param("a", (), init=1.0), g.param("b", (), init=1.0)
    g.output("attract", gc.square(a - 3 * b))
    g.output("repel", gc.square(a + b))
    step = gc.training_step(g, "attract", gc.optim.SGD(0.1), wrt=["a"])
    step = gc.training_step(step, "repel", gc.optim.SGD(0.1), wrt=["b"])
    state = gc.initialize(step)
    gc.interpret(step, **state)
    assert float(state["a"]) == pytest.approx(1 - 0.1 * 2 * (1 - 3))
    assert float(state["b"]) == pytest.approx(1 - 0.1 * 2 * (1 + 1))


def batches(epoch: int) -> list[dict[str, np.ndarray]]:
    return [batch(10 * epoch + k, "float32") for k in range(3)]


def test_fit_learns_and_reports() -> None:
    step = gc.training_step(regression("float32"), "loss", gc.optim.Adam(0.05))
    data = [batch(0, "float32")]
    result = gc.fit(step, data, epochs=40, evaluate=lambda state: {"norm": float(np.abs(state["W"]).sum())}, quiet=True)
    assert result.history[-1]["loss"] < 0.2 * result.history[0]["loss"]
    assert set(result.history[0]) == {"epoch", "loss", "norm"}
    assert [r["epoch"] for r in result.history] == list(range(40))


def test_a_resumed_run_is_the_uninterrupted_run(tmp_path: Path) -> None:
    step = gc.training_step(regression("float32"), "loss", gc.optim.Adam(gc.optim.cosine(0.05, 12)))
    whole = gc.fit(step, batches, epochs=4, seed=5, quiet=True)
    path = tmp_path / "run.safetensors"
    gc.fit(step, batches, epochs=2, seed=5, checkpoint=path, quiet=True)
    resumed = gc.fit(step, batches, epochs=4, seed=5, checkpoint=path, quiet=True)
    assert resumed.history == whole.history
    for name, array in whole.state.items():
        assert np.array_equal(array, resumed.state[name]), name


def test_fit_within_a_limit_on_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps to the limit and trains the same, on the CPU and on a GPU; a run is resumed with another one."""
    device = EmulatedDevice()
    monkeypatch.setattr(sys.modules["graphc.compiling.compile"], "nvidia_device", lambda: device)
    step = gc.training_step(regression("float32"), "loss", gc.optim.Adam(0.05))
    rng = np.random.default_rng(0)
    data = [{"x": rng.normal(size=(400, 2, 3)).astype("f"), "y": rng.normal(size=(2, 2)).astype("f")}]
    whole = gc.fit(step, data, epochs=2, quiet=True)
    limit = gc.compile(step).memory(t=400, n=2).peak * 2 // 3
    for target in ("cpu", "cuda"):
        path = tmp_path / target
        gc.fit(step, data, epochs=1, checkpoint=path, quiet=True, target=target, memory=limit)
        found = gc.fit(step, data, epochs=2, checkpoint=path, quiet=True, target=target)
        for name, array in whole.state.items():
            np.testing.assert_allclose(found.state[name], array, rtol=1e-4, atol=1e-5, err_msg=name)
        with pytest.raises(ArgumentError, match=r"limited to 1\.0 KiB"):
            gc.fit(step, data, quiet=True, target=target, memory="1 KiB")


def test_a_checkpoint_of_another_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    gc.fit(gc.training_step(regression("float32"), "loss", gc.optim.SGD(0.1)), batches, checkpoint=path, quiet=True)
    before = path.read_bytes()
    with pytest.raises(ArgumentError, match="mean_"):
        gc.fit(gc.training_step(regression("float32"), "loss", gc.optim.Adam()), batches, checkpoint=path, quiet=True)
    step = gc.training_step(regression("float32"), "loss", gc.optim.SGD(0.2))
    with pytest.raises(ArgumentError, match="other equations"):
        gc.fit(step, batches, checkpoint=path, quiet=True)
    with pytest.raises(ArgumentError, match="seed=0, not 1"):
        gc.fit(gc.training_step(regression("float32"), "loss", gc.optim.SGD(0.1)), batches, seed=1, checkpoint=path)
    assert path.read_bytes() == before
    gc.fit(step, batches, checkpoint=path, resume=False, quiet=True)
    assert path.read_bytes() != before


HASH = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("begun", "now", "says"),
    [
        ({"size": 8}, {"size": 9}, "size=8, not 9; give that size"),
        ({"size": 8}, {}, "size=8; give that"),
        ({}, {"size": 8}, "no size; leave it out"),
        ({"held_out": HASH}, {}, "with held_out; give what it had"),
        ({"held_out": HASH}, {"held_out": HASH[::-1]}, "other held_out; give what it had"),
        ({}, {"held_out": HASH}, "no held_out; leave it out"),
    ],
)
def test_settings_are_those_that_a_run_was_begun_with(
    begun: dict[str, object], now: dict[str, object], says: str, tmp_path: Path
) -> None:
    step = gc.training_step(regression("float32"), "loss", gc.optim.SGD(0.1))
    path = tmp_path / "run.safetensors"
    gc.fit(step, batches, settings=begun, checkpoint=path, quiet=True)
    with pytest.raises(ArgumentError, match=says):
        gc.fit(step, batches, epochs=2, settings=now, checkpoint=path, quiet=True)
    gc.fit(step, batches, epochs=2, settings=begun, checkpoint=path, quiet=True)


def test_a_run_that_breaks_off_resumes_at_the_last_whole_epoch(tmp_path: Path) -> None:
    step = gc.training_step(regression("float32"), "loss", gc.optim.Momentum(0.05))
    path = tmp_path / "new" / "run.safetensors"

    def breaking(epoch: int) -> Iterator[dict[str, np.ndarray]]:
        yield batches(epoch)[0]
        if epoch == 2:
            raise KeyboardInterrupt
        yield from batches(epoch)[1:]

    with pytest.raises(KeyboardInterrupt):
        gc.fit(step, breaking, epochs=4, checkpoint=path, quiet=True)
    resumed = gc.fit(step, batches, epochs=4, checkpoint=path, quiet=True)
    whole = gc.fit(step, batches, epochs=4, quiet=True)
    assert resumed.history == whole.history
    assert all(np.array_equal(resumed.state[name], array) for name, array in whole.state.items())
    assert read(path)[1]["epoch"] == "4"


def test_a_path_that_cannot_be_written_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    step = gc.training_step(regression("float32"), "loss", gc.optim.SGD(0.1))
    seen: list[int] = []
    with pytest.raises(OSError):
        gc.fit(step, lambda epoch: seen.append(epoch) or batches(epoch), checkpoint=tmp_path / "file" / "x", quiet=True)
    assert not seen


def test_training_begins_at_the_params_given() -> None:
    step = gc.training_step(regression("float32"), "loss", gc.optim.Momentum(0.0))
    given = np.full((4, 4), 0.25, np.float32)
    result = gc.fit(step, batches, state={"W": given}, seed=3, quiet=True)
    assert np.array_equal(result.state["W"], given)
    assert result.state["W"] is not given
    assert np.array_equal(result.state["U"], gc.initialize(step, seed=3)["U"])


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    step = gc.training_step(regression("float32"), "loss", gc.optim.SGD(0.1))
    gc.fit(step, batches, epochs=2, quiet=True)
    assert capsys.readouterr().out == ""
    gc.fit(step, batches, epochs=2)
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == ["epoch 1/2", "epoch 2/2"]


def test_names_are_printed_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step, path = gc.training_step(bowl(), "loss", gc.optim.SGD(0.1)), tmp_path / "a[red].safetensors"
    gc.fit(step, [{}], evaluate=lambda state: {"error[bold]": 1.0}, checkpoint=path)
    gc.fit(step, [{}], evaluate=lambda state: {"error[bold]": 1.0}, checkpoint=path)
    said = capsys.readouterr().out
    assert "error[bold] 1" in said
    assert f"{path}: 1 epochs are done already" in said


def test_an_epoch_without_batches_is_an_error() -> None:
    step = gc.training_step(regression("float32"), "loss", gc.optim.SGD(0.1))
    with pytest.raises(ArgumentError, match="no batches"):
        gc.fit(step, [], quiet=True)


def test_params_are_named_or_given_as_values() -> None:
    g = regression("float32")
    W = g.value("W")
    for differentiate in (gc.grad, gc.vjp, gc.jvp):
        assert differentiate(g, "loss", wrt=[W, "U"]) == differentiate(g, "loss", wrt=["W", "U"])
    assert gc.grad(gc.unroll(g, t=2), "loss", wrt=W) == gc.grad(gc.unroll(g, t=2), "loss", wrt="W")
    sgd = gc.optim.SGD(0.1)
    assert gc.training_step(g, "loss", sgd, wrt=[W]) == gc.training_step(g, "loss", sgd, wrt=["W"])


def test_what_is_measured_may_be_numbers_of_numpy(tmp_path: Path) -> None:
    step = gc.training_step(regression("float32"), "loss", gc.optim.SGD(0.1))
    options: dict[str, Any] = {"checkpoint": tmp_path / "run.safetensors", "settings": {"size": 3}, "quiet": True}
    found = gc.fit(step, batches, evaluate=lambda state: {"norm": np.abs(state["W"]).max()}, **options)
    assert type(found.history[0]["norm"]) is float
    assert gc.fit(step, batches, **options).history == found.history
    with pytest.raises(ArgumentError, match="size=3, not 4"):
        gc.fit(step, batches, **options | {"settings": {"size": 4}})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"evaluate": lambda state: 0.9}, "evaluate= returns numbers by name"),
        ({"evaluate": lambda state: {"name": "high"}}, "evaluate= returns numbers by name"),
        ({"evaluate": lambda state: {"row": np.zeros(2)}}, "evaluate= returns numbers by name"),
        ({"epochs": -1}, "epochs= is"),
        ({"epochs": 1.5}, "epochs= is"),
        ({"batches": None}, "batches= is a list"),
        ({"batches": lambda *, epoch: []}, "called with the epoch's number"),
        ({"best": 3}, "best= names a number"),
        ({"best": "los"}, "the numbers of an epoch are loss; did you mean 'loss'"),
        ({"best": "val", "evaluate": lambda state: {"vals": 1.0}}, "are loss, vals; did you mean 'vals'"),
        ({"best": lambda record: "low"}, "best= is a function that returns a number"),
        ({"best": "loss", "patience": 0}, "patience= is a number of epochs"),
        ({"patience": 3}, "say by best='loss'"),
        ({"batches": lambda epoch: None}, "batches\\(epoch\\) gives the dicts of an epoch, but returned NoneType"),
        ({"evaluate": 0.9}, "evaluate= is a function of the state"),
        ({"state": [1, 2]}, "state= is a dict by name"),
        ({"settings": "large"}, "settings= is a dict by name"),
    ],
)
def test_what_fit_cannot_use_is_refused(given: dict[str, Any], says: str) -> None:
    step = gc.training_step(regression("float32"), "loss", gc.optim.SGD(0.1))
    with pytest.raises(ArgumentError, match=says):
        gc.fit(step, **{"batches": batches, "quiet": True, **given})


def test_training_that_leaves_the_numbers_is_stopped_and_its_checkpoint_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.safetensors"
    step = gc.training_step(regression("float32"), "loss", gc.optim.SGD(0.1))

    def spoilt(epoch: int) -> list[dict[str, np.ndarray]]:
        made = batches(epoch)
        if epoch == 2:
            made[1]["x"][0, 0, 0] = np.nan
        return made

    with pytest.raises(DivergenceError, match=r"in batch 2 of epoch 3/4: loss is nan, .* not finite; input x of this"):
        gc.fit(step, spoilt, epochs=4, checkpoint=path)
    assert "run.safetensors holds 2 epochs" in capsys.readouterr().out
    arrays, metadata = read(path)
    assert metadata["epoch"] == "2"
    assert all(np.isfinite(array).all() for array in arrays.values())
    gc.fit(step, batches, epochs=3, checkpoint=path, quiet=True)


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_rate_that_is_too_high_is_named_as_the_cause(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["graphc.compiling.compile"], "nvidia_device", EmulatedDevice)
    step = gc.training_step(regression("float32"), "loss", gc.optim.SGD(3e38))
    with pytest.raises(DivergenceError, match="learning rate"):
        gc.fit(step, batches, quiet=True, target=target)
    silent = step.copy()
    del silent.outputs["loss"]  # without a number to watch
    with pytest.raises(DivergenceError, match="in epoch 1"):
        gc.fit(silent, batches, quiet=True, target=target)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("lr", value) for value in (-0.1, np.inf, np.nan, "fast", True)),
        *(("clip", value) for value in (0, -1.0, "none")),
        ("weight_decay", -1),
        ("momentum", 1.5),
        ("beta", 1.0),
        ("beta1", 1.0),
        ("beta1", "0.9"),
        ("beta2", -0.1),
        ("eps", np.nan),
    ],
)
def test_rates_and_bounds_that_are_no_such_numbers_are_refused(name: str, value: Any) -> None:
    rules = (gc.optim.SGD, gc.optim.Momentum, gc.optim.RMSprop, gc.optim.Adam, gc.optim.AdamW)
    taking = [rule for rule in rules if name in rule.__dataclass_fields__]
    assert taking
    for rule in taking:
        with pytest.raises(DefinitionError, match=rf"gc\.optim\.{rule.__name__} .* {name}=.* got {value!r}"):
            rule(**{"lr": 0.1, name: value})


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        (lambda: gc.optim.exponential_decay(0.1, 0.9, 0), "exponential_decay takes as steps= a number above 0, got 0"),
        (lambda: gc.optim.step_decay(0.1, 0.5, every=0), "step_decay takes as every= a number above 0, got 0"),
        (lambda: gc.optim.cosine(0.1, 10, warmup=-1), "cosine takes as warmup= a number of at least 0, got -1"),
        (lambda: gc.optim.constant(-1.0), "constant takes as lr= a number of at least 0, got -1.0"),
        (lambda: gc.optim.warmup("fast", 3), "warmup takes as lr= a number of at least 0, got 'fast'"),
    ],
)
def test_schedules_that_give_no_rate_are_refused(schedule: Callable[[], Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        schedule()


def test_what_is_not_trained_may_be_infinite() -> None:
    g = regression("float32")
    lowest = g.param("lowest", (), init="inf", trainable=False)
    g.output("before", lowest)
    g.update(lowest, gc.minimum(lowest, g.value("loss")))
    gc.fit(gc.training_step(g, "loss", gc.optim.SGD(0.1)), batches, epochs=2, quiet=True)


def test_a_state_is_carried_from_batch_to_batch() -> None:
    """Truncated backpropagation through time in fit: the stretches of an epoch, then anew from zeros."""
    g = gc.Graph("stretches")
    t, n = g.axis("t"), g.axis("n")
    h0 = g.input("h0", (4,), over=n)
    h = g.state("h", (4,), over=(t, n), initial=h0)
    h[t] = gc.tanh(g.param("W", (4, 4)) @ h[t - 1] + g.input("x", (4,), over=(t, n)))
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    g.update(h0, h[t.last])
    whole = np.random.default_rng(0).normal(size=(12, 3, 4)).astype(np.float32)

    def stretches(epoch: int) -> Iterator[dict[str, np.ndarray]]:
        carried = np.zeros((3, 4), np.float32)
        return ({"x": x, "h0": carried} for x in np.split(whole, 4))

    still = gc.fit(gc.training_step(g, "loss", gc.optim.SGD(0.0)), stretches, epochs=2, quiet=True)
    once = gc.compile(gc.select(g, "loss"))(x=whole, h0=np.zeros((3, 4), "f"), W=still.state["W"])["loss"]
    assert [record["loss"] for record in still.history] == pytest.approx([float(once)] * 2)
    learnt = gc.fit(gc.training_step(g, "loss", gc.optim.Adam(0.05)), stretches, epochs=9, quiet=True)
    assert learnt.history[-1]["loss"] < learnt.history[0]["loss"]
