"""Checkpoints are written whole or not at all, and read without trust."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc as gc
from graphc.checkpoint import load, read, save
from graphc.errors import ArgumentError
from graphc.files import Claim

ARRAYS = {
    "W": np.arange(6, dtype=np.float32).reshape(2, 3),
    "step": np.array(7, np.int32),
    "d": np.linspace(0, 1, 3),
    "flag": np.array([True, False]),
    "none": np.zeros((0, 4), np.float32),
}


def test_round_trip(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", ARRAYS, {"note": "ü"})
    arrays, metadata = read(tmp_path / "a.safetensors")
    assert metadata == {"note": "ü"}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)
        assert arrays[name].shape == array.shape
        assert arrays[name].flags.writeable


def test_a_transposed_array_keeps_its_values(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", {"W": ARRAYS["W"].T})
    assert np.array_equal(load(tmp_path / "a.safetensors")["W"], ARRAYS["W"].T)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save(path, ARRAYS)
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(path, {"W": np.zeros(3)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path) -> None:
    save(tmp_path / ("n" * 255), ARRAYS)
    assert load(tmp_path / ("n" * 255))["step"] == 7
    with pytest.raises(OSError, match="too long"):
        save(tmp_path / ("n" * 256), ARRAYS)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "latest.safetensors").symlink_to(tmp_path / "runs" / "7.safetensors")
    for arrays in (ARRAYS, {"W": np.zeros(3)}):
        save(tmp_path / "latest.safetensors", arrays)
        assert (tmp_path / "latest.safetensors").is_symlink()
        assert load(tmp_path / "runs" / "7.safetensors").keys() == arrays.keys()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    program = "import sys, graphc.checkpoint; graphc.checkpoint.load(sys.argv[1])"
    command = [sys.executable, "-c", program, str(tmp_path / "pipe.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "ArgumentError" in done.stderr
    assert "not a regular file" in done.stderr


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"nothing\.safetensors.*No such file"):
        load(tmp_path / "nothing.safetensors")


def test_a_huge_header_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(ArgumentError, match="claims 1152921504606846976 bytes"):
        load(path)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 90_000,
        b'{"W":' + b"[" * 90_000,
        b"[]",
        b'{"__metadata__":null}',
        b'{"__metadata__":{"note":1}}',
        b'{"W":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4611686018427387904]}}',
        b'{"W":{"dtype":"F32","shape":[-1],"data_offsets":[0,2]}}',
    ],
)
def test_a_header_that_means_nothing_is_an_error(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(ArgumentError, match="not a whole safetensors file"):
        load(path)


def test_a_dtype_that_numpy_lacks_is_named(tmp_path: Path) -> None:
    header = b'{"scale":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}'
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"0000")
    with pytest.raises(ArgumentError, match=r"a\.safetensors holds scale in F8_E4M3; of the format's dtypes F16, F32"):
        load(tmp_path / "a.safetensors")


def test_folders_are_made_and_others_may_read(tmp_path: Path) -> None:
    path = tmp_path / "some" / "where" / "a.safetensors"
    save(path, ARRAYS)
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@given(st.data())
def test_a_damaged_file_is_an_error_or_other_numbers(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever the damage, reading raises `ArgumentError` or gives arrays; it never does anything else."""
    path = tmp_path_factory.mktemp("damaged") / "a.safetensors"
    save(path, ARRAYS, {"note": "x"})
    whole = path.read_bytes()
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        position = data.draw(st.integers(0, len(whole) - 1))
        damaged = whole[:position] + bytes([data.draw(st.integers(0, 255))]) + whole[position + 1 :]
    path.write_bytes(damaged)
    try:
        arrays = load(path)
    except ArgumentError:
        return
    assert len(damaged) == len(whole)
    assert all(isinstance(a, np.ndarray) for a in arrays.values())


def test_params_are_saved_and_loaded_by_name(tmp_path: Path) -> None:
    g = gc.Graph("g")
    g.output("y", g.param("W", (2, 3)) @ g.param("x", (3,), init=1.0))
    params = gc.initialize(g)
    gc.save(tmp_path / "params.safetensors", params)
    loaded = gc.load(tmp_path / "params.safetensors")
    assert all(np.array_equal(loaded[name], array) for name, array in params.items())
    assert gc.compile(g)(**loaded)["y"].tolist() == gc.compile(g)(**params)["y"].tolist()


@pytest.mark.parametrize("strings", [{}, {"step": "3"}])
@pytest.mark.parametrize("names", [(), ("W",)])
def test_a_file_may_hold_nothing(tmp_path: Path, names: tuple[str, ...], strings: dict[str, str]) -> None:
    """As of a graph without params."""
    path = tmp_path / "a.safetensors"
    save(path, {name: np.ones(2) for name in names}, strings)
    arrays, found = read(path)
    assert tuple(arrays) == names
    assert found == strings


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ([np.ones(2)], "dict of arrays by name"),
        ({0: np.ones(2)}, "dict of arrays by name"),
        ({"W": [1.0]}, "W is a list"),
        ({"__metadata__": np.ones(2)}, "keeps the name __metadata__"),
        ({"W": np.array([None])}, "W is a object array"),
    ],
)
def test_what_is_no_array_is_not_written(tmp_path: Path, arrays: Any, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        save(tmp_path / "a.safetensors", arrays)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.npz", "a.PT", "a.onnx"])
def test_a_name_does_not_promise_another_format(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArgumentError, match=r"say a\.safetensors"):
        save(tmp_path / name, ARRAYS)
    assert not list(tmp_path.iterdir())


def test_what_killed_writers_left_is_removed_by_a_later_write(tmp_path: Path) -> None:
    kept = [".a.safetensors.0123456789abcdef", ".a.safetensors.fedcba9876543210", "a.safetensors.0123456789abcdef"]
    kept += [".b.safetensors.0123456789abcdef", ".a.safetensors.0123456789abcdeX"]
    for name in kept:
        (tmp_path / name).write_bytes(b"half")
    for name in kept[1:]:
        os.utime(tmp_path / name, (0, 0))
    save(tmp_path / "a.safetensors", ARRAYS)
    assert {p.name for p in tmp_path.iterdir()} == {"a.safetensors", kept[0], *kept[2:]}  # kept[0] may be at work


@pytest.mark.skipif(sys.platform == "win32", reason="limits of processes are Unix's")
@pytest.mark.parametrize("elements", [1000, 100_000])  # less than a buffer, and more
def test_a_disk_that_is_full_is_said_with_the_files_name(tmp_path: Path, elements: int) -> None:
    program = f"""
import resource
import numpy as np
from graphc.checkpoint import save
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
save("a.safetensors", {{"W": np.zeros({elements})}})
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == f"OSError: [Errno 27] File too large: '{tmp_path}/a.safetensors'"
    assert not list(tmp_path.iterdir())


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=re.escape(f"'{tmp_path}/{'x' * 300}'")):
        save(tmp_path / ("x" * 300), ARRAYS)
    assert not list(tmp_path.iterdir())


def test_a_claimed_file_is_refused_to_others_until_it_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with Claim(path) as first:
        first.write(b"one")
        with pytest.raises(ArgumentError, match="another process is writing"), Claim(path):
            pass
        first.write(b"two")
        with pytest.raises(ArgumentError, match="another process is writing"), Claim(path):
            pass
    with Claim(path) as second:
        second.write(b"three")
    assert path.read_bytes() == b"three"
    assert list(tmp_path.iterdir()) == [path]


def test_two_that_begin_together_do_not_write_over_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with Claim(path) as first, Claim(path) as second:  # neither finds a file
        first.write(b"one")
        second.write(b"two")
        with pytest.raises(ArgumentError, match="has written"):
            first.write(b"three")
        assert path.read_bytes() == b"two"
        path.unlink()
        second.write(b"four")  # what was removed may be written again


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    program = f"""
import os, signal
from graphc.files import Claim
with Claim({str(path)!r}) as claim:
    claim.write(b"one")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    with Claim(path) as claim:
        claim.write(b"two")
    assert path.read_bytes() == b"two"
