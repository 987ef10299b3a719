"""The command line, as a user meets it."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import graphc as gc
from graphc.command_line.cli import main
from graphc.compiling.emit import STAGES

ROOT = Path(__file__).parent.parent
LSTM = str(ROOT / "examples" / "lstm.py")
FORMATS = ("npz", "safetensors")

CELL = """
import graphc as gc

def graph():
    g = gc.Graph("cell")
    t, n = g.axis("t"), g.axis("n")
    x, y = g.input("x", (2,), over=(t, n)), g.input("y", (), over=n)
    h = g.state("h", (3,), over=(t, n))
    h[t] = gc.tanh(g.param("U", (3, 2)) @ x + g.param("W", (3, 3)) @ h[t - 1])
    g.output("loss", gc.mean(gc.square(gc.sum(h[t.last]) - y), over=n))
    return g
"""


Run = Callable[..., str]


@pytest.fixture
def graphc(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in a folder; what it printed, on either stream."""

    def run(*arguments: str, cwd: Path, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["graphc", *arguments])
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.chdir(cwd)
        with pytest.raises(SystemExit) as ended:
            main()
        printed = "".join(capsys.readouterr())
        assert (ended.value.code or 0) == status, printed
        return printed

    return run


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    path = tmp_path / "cell.py"
    path.write_text(CELL, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("options", "expected"),
    [((), (Path("out/demo"), None)), (("--out", "pictures", "--epochs", "3"), (Path("pictures"), 3))],
)
def test_demo(
    graphc: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    expected: tuple[Path, int | None],
) -> None:
    """What it does is tested with the demo; this is what it is asked to do."""
    asked: list[tuple[Path, int | None]] = []
    monkeypatch.setattr("graphc.command_line.demo.run", lambda out, epochs: asked.append((out, epochs)))
    graphc("demo", *options, cwd=tmp_path)
    assert asked == [expected]


def test_draw(graphc: Run, tmp_path: Path) -> None:
    graphc("draw", LSTM, "--unroll", "t=3", "-o", "lstm.svg", cwd=tmp_path)
    svg = (tmp_path / "lstm.svg").read_text(encoding="utf-8")
    assert svg.lstrip().startswith("<")
    assert "t = 2" in svg
    assert "t = 3" not in svg


def test_draw_along_two_axes(graphc: Run, cell: Path) -> None:
    graphc("draw", str(cell), "--unroll", "t=2", "--unroll", "n=2", "-o", "new/both.svg", cwd=cell.parent)
    svg = (cell.parent / "new/both.svg").read_text(encoding="utf-8")
    assert all(f"h[{t}, {n}]" in svg for t in range(2) for n in range(2))
    assert "h[2, 0]" not in svg


def test_draw_beside_the_file(graphc: Run, cell: Path) -> None:
    assert "cell.svg" in graphc("draw", str(cell), cwd=cell.parent)
    assert "adjoint" not in (cell.parent / "cell.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments",
    [
        ("cell.py", "--grad", "loss", "-o", "cell.dot"),
        ("cell.py", "--grad=loss", "-o", "cell.dot"),
        ("cell.py", "-o", "cell.dot", "--grad"),
        ("cell.py", "--grad", "-o", "cell.dot"),
        ("--grad", "cell.py", "-o", "cell.dot"),
    ],
)
def test_the_gradient_is_of_the_loss_or_of_a_named_output(graphc: Run, cell: Path, arguments: tuple[str, ...]) -> None:
    graphc("draw", *arguments, cwd=cell.parent)
    assert "adjoint" in (cell.parent / "cell.dot").read_text(encoding="utf-8")
    by_name = tuple(argument.replace("=loss", "=soup").replace("loss", "soup") for argument in arguments)
    if by_name != arguments:
        assert "no output 'soup'" in graphc("draw", *by_name, cwd=cell.parent, status=1)


@pytest.mark.parametrize(
    ("stage", "shows"),
    [
        ("graph", "h[t] = tanh(U @ x + W @ h[t - 1])"),
        ("grad", "output grad_W ="),
        ("schedule", "loop t up"),
        ("program", "kernel h("),
        ("llvm", "define"),
        ("asm", ".text"),
    ],
)
def test_show(graphc: Run, cell: Path, stage: str, shows: str) -> None:
    assert stage in STAGES
    assert shows in graphc("show", str(cell), "--emit", stage, cwd=cell.parent)


@pytest.mark.parametrize(("target", "shows"), [("cpu", ("edges", "cell.py:")), ("cuda", ("on sm_90", "CTA"))])
def test_explain(graphc: Run, cell: Path, target: str, shows: tuple[str, ...]) -> None:
    options = ("--grad", "--length", "t=100", "--target", target)
    printed = graphc("explain", str(cell), *options, cwd=cell.parent)
    for text in ("loop", "t = 100", "n = 64", *shows):
        assert text in printed


def test_check(graphc: Run, cell: Path) -> None:
    printed = graphc("check", str(cell), cwd=cell.parent)
    assert "compiled" in printed
    assert {"x", "y", "U", "W"} <= set(printed.split())


def test_check_draws_its_arrays_from_the_seed(graphc: Run, cell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[tuple[int, float]] = []

    def noted(graph: gc.Graph, of: str, seed: int, tolerance: float, **how: object) -> dict[str, float]:
        seeds.append((seed, tolerance))
        return {}

    monkeypatch.setattr("graphc.testing.check_gradients", noted)
    graphc("check", str(cell), "--seed", "7", "--tolerance", "1e-4", cwd=cell.parent)
    assert seeds == [(7, 1e-4)] * 2


def test_check_finds_a_wrong_gradient(graphc: Run, cell: Path) -> None:
    wrong = CELL.replace("def graph", "@gc.custom_gradient\ndef twice(v):\n    return v * 2, lambda d: d\n\ndef graph")
    cell.write_text(wrong.replace("gc.square(", "twice("), encoding="utf-8")
    assert "loss" in graphc("check", str(cell), cwd=cell.parent, status=1)


def test_train_on_an_archive_and_resume(graphc: Run, cell: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(cell.parent / "data.npz", x=rng.normal(size=(4, 20, 2)).astype("f"), y=rng.normal(size=20).astype("f"))
    arguments = ("train", str(cell), "--data", "data.npz", "--batch-size", "8", "-o", "state.safetensors")
    assert "epoch 2/2" in graphc(*arguments, "--epochs", "2", cwd=cell.parent)
    later = graphc(*arguments, "--epochs", "3", cwd=cell.parent)
    assert "epoch 3/3" in later
    assert "epoch 1/3" not in later


def test_training_is_not_resumed_on_other_data(graphc: Run, cell: Path) -> None:
    rng, folder = np.random.default_rng(0), cell.parent
    for name in ("data.npz", "same.npz", "other.npz"):
        x, y = np.ones((4, 20, 2), "f"), rng.normal(size=20).astype("f") if name == "other.npz" else np.ones(20, "f")
        np.savez(folder / name, x=x, y=y, unused=np.zeros(3))
    first = ("train", str(cell), "-o", "state.safetensors", "--data")
    graphc(*first, "data.npz", "--batch-size", "8", "--epochs", "1", cwd=folder)
    before = (folder / "state.safetensors").read_bytes()
    for options, difference in ((("other.npz", "--batch-size", "8"), "data"), (("data.npz",), "batch_size")):
        said = graphc(*first, *options, "--epochs", "2", cwd=folder, status=1)
        assert difference in said
        assert "remove the file or give another path" in said
    assert (folder / "state.safetensors").read_bytes() == before
    assert "epoch 2/2" in graphc(*first, "same.npz", "--batch-size", "8", "--epochs", "2", cwd=folder)


def test_the_files_own_data_follow_from_the_seed(graphc: Run, cell: Path) -> None:
    own = "def data(seed):\n    print('seed', seed)\n    return {'x': np.ones((4, 3, 2), 'f'), 'y': np.ones(3, 'f')}\n"
    cell.write_text(f"import numpy as np\n{CELL}\n{own}", encoding="utf-8")

    def seeds(*options: str) -> list[str]:
        printed = graphc("train", cell.name, "--epochs", "2", *options, cwd=cell.parent)
        return [line for line in printed.splitlines() if line.startswith("seed")]

    assert seeds() == seeds("--seed", "0")
    assert len({*seeds(), *seeds("--seed", "1"), *seeds("--seed", "2")}) == 6


def test_of_an_archive_only_the_inputs_are_unpacked(graphc: Run, cell: Path) -> None:
    """What else is in it may be damaged, or larger than the machine; an input that claims to be is an error."""

    def header(*shape: int) -> bytes:
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        return file.getvalue()

    arrays = {"x": np.ones((4, 8, 2), "f"), "y": np.ones(8, "f")}
    np.savez(cell.parent / "more.npz", **arrays)
    np.savez(cell.parent / "less.npz", x=arrays["x"])
    for name, member in (("more.npz", "unused.npy"), ("less.npz", "y.npy")):
        with zipfile.ZipFile(cell.parent / name, "a") as archive:
            archive.writestr(member, header(2**45) + b"soup")
    options = ("--epochs", "1", "--data")
    assert "epoch 1/1" in graphc("train", cell.name, *options, "more.npz", cwd=cell.parent)
    assert "not an archive of plain arrays" in graphc(
        "train", cell.name, *options, "less.npz", cwd=cell.parent, status=1
    )


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, "locked", "unknown"])
def test_a_damaged_archive_is_an_error_of_one_line(packing: int | str, graphc: Run, cell: Path) -> None:
    """However its arrays are packed."""
    array, file = io.BytesIO(), io.BytesIO()
    np.save(array, np.ones((4, 8, 2), "f"))
    with zipfile.ZipFile(file, "w", packing if isinstance(packing, int) else zipfile.ZIP_STORED) as archive:
        archive.writestr("x.npy", array.getvalue())
        archive.writestr("y.npy", array.getvalue())
    data = bytearray(file.getvalue())
    listed = data.find(b"PK\1\2")
    if packing == "locked":
        data[6] = data[listed + 8] = 1
    elif packing == "unknown":
        data[8] = data[listed + 10] = 99
    else:
        data[44:60] = b"\xff" * 16
    (cell.parent / "data.npz").write_bytes(data)
    said = graphc("train", cell.name, "--data", "data.npz", "--epochs", "1", cwd=cell.parent, status=1)
    assert "data.npz is not an archive of plain arrays" in said


def test_members_of_an_archive_that_are_no_arrays_do_not_count(graphc: Run, cell: Path) -> None:
    with zipfile.ZipFile(cell.parent / "data.npz", "w") as archive:
        archive.writestr("x", b"")
        archive.writestr("\x1b[31m.npy", b"")
    said = graphc("train", cell.name, "--data", "data.npz", "--epochs", "1", cwd=cell.parent, status=1)
    assert "no array for input x, y; it has \\x1b[31m" in said


def test_an_archive_in_either_format_trains_the_same(graphc: Run, cell: Path) -> None:
    """Two epochs of shuffled batches; a file that was read wrongly would give another loss."""
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(4, 20, 2)).astype("f"), "y": rng.normal(size=20).astype("f")}
    np.savez(cell.parent / "data.npz", **arrays)
    save_file(arrays, cell.parent / "data.safetensors")
    options = ("--batch-size", "8", "--epochs", "2", "--optimizer", "momentum", "--lr", "0.1")
    printed = [graphc("train", str(cell), "--data", f"data.{end}", *options, cwd=cell.parent) for end in FORMATS]
    assert printed[0] == printed[1]
    assert "epoch 2/2  loss" in printed[0]


def test_what_is_held_out_is_measured_and_not_learnt(graphc: Run, cell: Path) -> None:
    """The sums of the targets say which examples are where: each is in one part."""
    text = CELL.replace('    g.output("loss"', '    g.output("total", gc.sum(y, over=n))\n    g.output("loss"')
    text = text.replace("    return g", "    g.axis('k', 2)\n    return g")
    cell.write_text(text, encoding="utf-8")
    np.savez(cell.parent / "data.npz", x=np.ones((4, 10, 2), "f"), y=2.0 ** np.arange(10, dtype="f"))
    line = graphc("train", "cell.py", "--data", "data.npz", "--held-out", "0.3", "--epochs", "1", cwd=cell.parent)
    numbers = dict(part.rsplit(" ", 1) for part in line.strip().split("  ")[1:])
    learnt, held_out = float(numbers["total"]), float(numbers["held_out_total"])
    assert learnt + held_out == 2**10 - 1
    assert int(held_out).bit_count() == 3
    options = ("--data", "data.npz", "--held-out", "0.3", "--batch-axis", "k")
    assert "no input has the axis 'k'" in graphc("train", "cell.py", *options, cwd=cell.parent, status=1)


def test_training_ends_when_what_is_held_out_gets_no_better(graphc: Run, cell: Path) -> None:
    """What is learnt makes it worse; and nothing is dropped where it is measured."""
    own = (
        "def data(seed):\n    return {'x': np.ones((4, 3, 2), 'f'), 'y': np.full(3, 9.0, 'f')}\n"
        "def held_out():\n    return {'x': np.ones((4, 2, 2), 'f'), 'y': np.full(2, -9.0, 'f')}\n"
    )
    kept = (
        'g.output("kept", gc.mean(gc.dropout(1 + 0 * y, 0.5, 1), over=n))'  # of 3 in training: no mean of 0 and 2 is 1
    )
    text = CELL.replace("    return g", f"    {kept}\n    return g")
    cell.write_text(f"import numpy as np\n{text}\n{own}", encoding="utf-8")
    options = ("train", "cell.py", "--epochs", "50", "-o", "run.safetensors", "--patience", "4", "--weight-decay", ".1")
    printed = graphc(*options, cwd=cell.parent)
    assert "epoch 6/50" not in printed
    assert "held_out_kept 1\n" in printed
    assert "  kept 1 " not in printed
    assert "epoch 1 was the best; 4 after it were not" in printed
    assert "run.best.safetensors: 7 arrays" in printed
    best = gc.load(cell.parent / "run.best.safetensors")
    assert int(best["step"]) == 1
    said = graphc(*options, cwd=cell.parent)
    assert "5 epochs are done already" in said
    assert "epoch 1 was the best" in said
    cell.write_text(cell.read_text().replace("-9.0", "-8.0"), encoding="utf-8")
    assert "other held_out" in graphc(*options, cwd=cell.parent, status=1)


def test_every_option_of_training_matters(graphc: Run, tmp_path: Path) -> None:
    """One epoch of a few batches, with each option in turn: no two losses are alike."""
    tried = [
        (),
        ("--optimizer", "sgd", "--lr", "0.5"),
        ("--lr", "0.5"),
        ("--optimizer", "sgd", "--lr", "0.5", "--clip", "0.1"),
        ("--optimizer", "sgd", "--lr", "0.5", "--weight-decay", "0.5"),
        ("--batch-size", "9"),
        ("--seed", "1"),
    ]
    batch = ("--batch-size", "16", "--epochs", "1")
    losses = [graphc("train", LSTM, *batch, *options, cwd=tmp_path) for options in tried]
    assert len(set(losses)) == len(tried)


def test_training_keeps_to_a_limit_on_memory(graphc: Run, cell: Path) -> None:
    np.savez(cell.parent / "data.npz", x=np.ones((400, 4, 2), "f"), y=np.ones(4, "f"))
    arguments = ("train", str(cell), "--data", "data.npz", "--epochs", "1")
    free, limited = (graphc(*arguments, *more, cwd=cell.parent) for more in ((), ("--memory", "24 KiB")))
    assert free == limited
    said = graphc(*arguments, "--memory", "1 KiB", cwd=cell.parent, status=1)
    assert "memory is limited to 1.0 KiB" in said
    assert "memory is a number of bytes" in graphc(*arguments, "--memory", "much", cwd=cell.parent, status=1)


def test_train_on_the_files_own_data(graphc: Run, tmp_path: Path) -> None:
    assert "epoch 1/1  loss" in graphc("train", LSTM, "--epochs", "1", cwd=tmp_path)


def test_train_on_the_vowels(graphc: Run, cell: Path) -> None:
    ragged = CELL.replace('g.axis("t"), g.axis("n")', 'None, g.axis("n")').replace(
        "    x, y =", '    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32"))\n    x, y ='
    )
    cell.write_text(
        ragged.replace("(2,)", "(12,)")
        .replace("(3, 2)", "(3, 12)")
        .replace('"y", (), over=n)', '"y", (), over=n, dtype="int32")'),
        encoding="utf-8",
    )
    assert "epoch 1/1  loss" in graphc("train", cell.name, "--data", "vowels", "--epochs", "1", cwd=cell.parent)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return {}", "data(seed) has no array for input x, y"),
        ("return {'x': np.zeros((4, 9, 2), 'f'), 'y': np.zeros(8, 'f')}", "do not agree on the number of examples"),
        ("return seed.x", "AttributeError: 'int' object has no attribute 'x'"),
    ],
)
def test_mistakes_in_the_files_own_data(graphc: Run, cell: Path, body: str, message: str) -> None:
    cell.write_text(f"import numpy as np\n{CELL}\ndef data(seed):\n    {body}\n", encoding="utf-8")
    assert message in graphc("train", cell.name, cwd=cell.parent, status=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "missing.py"), "there is no file missing.py"),
        (("show", "cell.py", "--emit", "soup"), "no stage 'soup'"),
        (("draw", "cell.py", "--unroll", "t"), "AXIS=STEPS"),
        (("draw", "cell.py", "--unroll", "t=four"), "AXIS=STEPS"),
        (("draw", "cell.py", "--unroll", "t=0"), "at least 1"),
        (("draw", "cell.py", "--unroll", "t=100", "--unroll", "n=1000"), "100,000 steps"),
        (("draw", "cell.py", "--unroll", "t=2", "--unroll", "t=3"), "axis 't' twice"),
        (("draw", "cell.py", "--unroll", "z=3"), "'z'"),
        (("draw", "cell.py", "-o", "cell.png"), "not as 'cell.png'"),
        (("check", "cell.py", "--of", "soup"), "no output 'soup'"),
        (("draw", "cell.py", "--engine", "soup"), "error: engine= is"),
        (("show", "cell.py", "--function", "nothing"), "no function 'nothing'"),
        (("export", "cell.py"), "needs a length of at least 0 for: t=…, n=…; given: none"),
        (("export", "cell.py", "--step", "t", "--length", "t=1", "--length", "n=1"), "not open along t"),
        (
            ("export", "cell.py", "--length", "t=1", "--length", "n=1", "--triple", "soup"),
            "no code can be made for triple='soup'",
        ),
        (("train", "cell.py"), "no function data(seed)"),
        (("train", "cell.py", "--data", "vowels"), "lengths"),
        (("train", "cell.py", "--data", "soup"), "not 'soup'"),
        (("train", "cell.py", "--data", "missing.npz"), "missing.npz"),
        (("train", "cell.py", "--data", "cell.npz"), "cell.npz is not an archive of plain arrays"),
        (("train", "cell.py", "--data", "empty.npz"), "there are no examples"),
        (("train", "cell.py", "--data", "half.npz"), "half.npz has no array for input y; it has x"),
        (("train", "cell.py", "--data", "empty.npz", "--lr", "inf"), "lr= a number of at least 0"),
        (("train", "cell.py", "--data", "empty.npz", "--clip", "0"), "clip= a number above 0"),
        (("profile", "cell.py", "--length", "t=99999999999"), "the inputs of graph 'cell' at these lengths needs"),
        (("train", "cell.py", "--data", "missing.safetensors"), "cannot read missing.safetensors"),
        (("train", "cell.py", "--data", "cell.safetensors"), "cell.safetensors is not a whole safetensors file"),
        (("train", "cell.py", "--optimizer", "soup"), "no optimizer 'soup'"),
        (("train", "cell.py", "--data", "empty.npz", "-o", "out/cell.npz"), "say cell.safetensors"),
        (("train", "cell.py", "--batch-axis", "m"), "no axis 'm'; it has t, n"),
        (("train", "own.py", "--held-out", "0.2"), "--held-out is a share of --data; beside data(seed)"),
        (("train", "cell.py", "--data", "three.npz", "--held-out", "0.1"), "0.1 of 3 examples is 0"),
        (("train", "cell.py", "--data", "three.npz", "--held-out", "nan"), "nan of 3 examples is 0"),
        (("train", "cell.py", "--data", "three.npz", "--held-out", "0.9"), "0.9 of 3 examples is 3"),
    ],
)
def test_mistakes_are_explained(graphc: Run, cell: Path, arguments: tuple[str, ...], message: str) -> None:
    (cell.parent / "cell.npz").write_bytes(b"soup")
    (cell.parent / "cell.safetensors").write_bytes(b"soup")
    np.savez(cell.parent / "empty.npz", x=np.zeros((4, 0, 2), "f"), y=np.zeros(0, "f"))
    np.savez(cell.parent / "three.npz", x=np.zeros((4, 3, 2), "f"), y=np.zeros(3, "f"))
    (cell.parent / "own.py").write_text(f"{CELL}\ndef data(seed):\n    return {{}}\n", encoding="utf-8")
    np.savez(cell.parent / "half.npz", x=np.zeros((4, 1, 2), "f"))
    if message == "lengths":  # a graph whose inputs the data set does not have
        cell.write_text(CELL.replace('"x"', '"frames"'), encoding="utf-8")
        message = "no array for input frames"
    printed = graphc(*arguments, cwd=cell.parent, status=1)
    assert message in printed
    assert "lib/python" not in printed
    assert len(printed.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "name"),
    [("check", "--seed"), ("check", "--tolerance"), *(("train", f"--{n}") for n in ("seed", "epochs", "clip", "lr"))],
)
def test_options_out_of_range_are_refused(graphc: Run, cell: Path, command: str, name: str) -> None:
    assert name in graphc(command, str(cell), name, "-1", cwd=cell.parent, status=2)


@pytest.mark.parametrize("command", ["draw", "show", "explain", "profile", "check", "train", "export"])
def test_a_command_without_its_file(graphc: Run, tmp_path: Path, command: str) -> None:
    assert "Missing argument 'FILE'" in graphc(command, cwd=tmp_path, status=2)


def test_mistakes_are_printed_on_stderr(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "graphc", "show", "missing.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: there is no file missing.py\n")


def test_one_function_among_several_is_chosen_by_name_or_annotation(graphc: Run, cell: Path) -> None:
    one = CELL.replace("def graph():", "def small() -> gc.Graph:")
    cell.write_text(one + "\ndef sized(units: int) -> gc.Graph:\n    raise NotImplementedError\n", encoding="utf-8")
    assert graphc("show", cell.name, cwd=cell.parent).startswith("graph cell")
    cell.write_text(one + one.replace("small", "other").replace('"cell"', '"second"'), encoding="utf-8")
    assert "small, other" in graphc("show", cell.name, cwd=cell.parent, status=1)
    assert graphc("show", cell.name, "--function", "other", cwd=cell.parent).startswith("graph second")


def test_a_mistake_in_the_file_names_its_line(graphc: Run, cell: Path) -> None:
    cell.write_text(CELL.replace("h[t - 1]", "h[t]"), encoding="utf-8")
    printed = " ".join(graphc("show", str(cell), "--emit", "program", cwd=cell.parent, status=1).split())
    assert "cell.py:8" in printed.replace(" ", "")
    assert "no delay" in printed


def test_a_file_is_a_program_of_its_own(graphc: Run, cell: Path) -> None:
    """It may define dataclasses and import what lies beside it."""
    (cell.parent / "sizes.py").write_text("UNITS = 3\n", encoding="utf-8")
    header = "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom sizes import UNITS\n"
    body = "\n@dataclass\nclass Sizes:\n    units: int = UNITS\n\ndef graph"
    cell.write_text(header + CELL.replace("(3,)", "(Sizes().units,)").replace("\ndef graph", body), encoding="utf-8")
    assert "h[t] =" in graphc("show", str(cell), cwd=cell.parent)


@pytest.mark.parametrize(
    ("code", "where"),
    [
        (CELL.replace("gc.tanh", "tanh"), "cell.py:9: NameError: name 'tanh' is not defined"),
        (CELL.replace("import graphc as gc", "import soup"), "cell.py:2: ModuleNotFoundError: No module named 'soup'"),
        (CELL.replace("def graph():", "def graph(:"), "cell.py:4: SyntaxError"),
        (CELL.replace("gc.tanh(", "int('"), "cell.py:9: SyntaxError"),
        (CELL.replace("gc.tanh", "ord"), "cell.py:9: TypeError"),
        (CELL + "\nraise SystemExit", "cell.py ended by sys.exit(None)"),
    ],
)
def test_a_mistake_in_the_users_code_is_one_line(graphc: Run, cell: Path, code: str, where: str) -> None:
    cell.write_text(code, encoding="utf-8")
    printed = graphc("show", cell.name, cwd=cell.parent, status=1)
    assert where in printed
    assert len(printed.splitlines()) == 1


@pytest.mark.parametrize("damage", ["truncated", "flipped", "objects", "an array"])
def test_a_damaged_archive_is_explained(graphc: Run, cell: Path, damage: str) -> None:
    path = cell.parent / "data.npz"
    array = np.array([None, 1]) if damage == "objects" else np.zeros((4, 20, 2), "f")
    np.savez_compressed(path, x=array, y=np.zeros(20, "f"))
    whole = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        path.write_bytes(whole[:60] + bytes([whole[60] ^ 255]) + whole[61:])
    elif damage == "an array":
        with path.open("wb") as file:
            np.save(file, array)
    printed = graphc("train", str(cell), "--data", "data.npz", cwd=cell.parent, status=1)
    assert "data.npz is not an archive of plain arrays" in " ".join(printed.split())


def test_help_names_every_command(graphc: Run, tmp_path: Path) -> None:
    printed = graphc("--help", cwd=tmp_path)
    for command in ("demo", "draw", "show", "explain", "profile", "check", "train", "export"):
        assert command in printed
        assert "Example:" in graphc(command, "--help", cwd=tmp_path)


def test_it_is_a_program(cell: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "graphc", "show", cell.name], cwd=cell.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("graph cell float32\n")


def test_export_brings_memory(graphc: Run, tmp_path: Path) -> None:
    """What a step keeps begins as states do, and params as they are drawn; those of a file are built in."""
    (tmp_path / "kept.py").write_text(
        "import graphc as gc\n"
        "def graph():\n"
        "    g = gc.Graph('kept')\n"
        "    t = g.axis('t')\n"
        "    h = g.state('h', (2,), over=t, initial=0.75)\n"
        "    h[t] = h[t - 1] + g.param('b', (2,), init=0.5) * g.input('x', (), over=t)\n"
        "    g.output('h', h)\n"
        "    return g\n",
        encoding="utf-8",
    )
    printed = graphc("export", "kept.py", "--step", "t", "--with-memory", "-o", "build", cwd=tmp_path)
    assert "build/kept_step_memory.h" in printed
    memory = (tmp_path / "build/kept_step_memory.h").read_text(encoding="utf-8")
    assert re.search(r"h_back1\[2\] = \{\s*0\.75f, 0\.75f,", memory)
    assert re.search(r"_b\[2\] = \{\s*0\.5f, 0\.5f,", memory)
    gc.save(tmp_path / "trained.safetensors", {"b": np.ones(2, np.float32)})
    graphc(
        *("export", "kept.py", "--step", "t", "--params", "trained.safetensors", "--with-memory", "-o", "build"),
        cwd=tmp_path,
    )
    assert "_b[2]" not in (tmp_path / "build/kept_step_memory.h").read_text(encoding="utf-8")
