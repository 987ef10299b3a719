"""The demo does what the README says of it."""

from __future__ import annotations

import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np

import graphc as gc
from graphc.checkpoint import load
from graphc.command_line.curve import learning_curve
from graphc.command_line.demo import arguments, graph, run
from graphc.datasets import japanese_vowels


def test_demo_learns_and_leaves_its_pictures(tmp_path: Path) -> None:
    accuracy = run(tmp_path / "demo", quiet=True)
    assert accuracy >= 0.96
    for name in ("graph", "unrolled", "learning_curve"):
        assert xml.parse(tmp_path / "demo" / f"{name}.svg").getroot().tag.endswith("svg")
    weights = load(tmp_path / "demo" / "weights.safetensors")
    test = japanese_vowels().test
    again = gc.compile(graph())(**arguments(test), **weights)["accuracy"]
    assert float(again) == np.float32(accuracy)


def test_vowels_are_whole() -> None:
    data = japanese_vowels(normalize=False)
    assert (len(data.train), len(data.test)) == (270, 370)
    for part in (data.train, data.test):
        assert part.values.dtype == np.float32
        assert part.values.shape == (part.lengths.max(), len(part), 12)
        assert set(part.speaker) == set(range(9))
        exists = np.arange(part.values.shape[0])[:, None] < part.lengths
        assert (part.values[~exists] == 0).all()
        assert (part.values[exists] != 0).all(axis=1).mean() > 0.99
    assert int(data.train.lengths.sum()) == 4274
    assert int(data.test.lengths.sum()) == 5687


def test_normalized_by_the_training_frames() -> None:
    train = japanese_vowels().train
    frames = train.values[np.arange(train.values.shape[0])[:, None] < train.lengths]
    np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(frames.std(axis=0), 1, atol=1e-5)


def test_batches_hold_every_utterance_once() -> None:
    train = japanese_vowels().train
    seen = list(train.batches(32, np.random.default_rng(0)))
    assert sum(len(b) for b in seen) == len(train)
    assert sum(int(b.lengths.sum()) for b in seen) == int(train.lengths.sum())
    assert all(b.values.shape[0] == b.lengths.max() for b in seen)


def test_learning_curve_escapes_and_survives() -> None:
    history = [{"epoch": 0.0, "a<b": 1.0, "loss": float("nan")}, {"epoch": 1.0, "a<b": 1.0, "loss": 2.0}]
    assert xml.fromstring(learning_curve(history)).tag.endswith("svg")
    assert xml.fromstring(learning_curve([])).tag.endswith("svg")
