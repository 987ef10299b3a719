"""Code that earlier processes have made, in files of the user's own: machine code, and PTX.

An entry's name is a digest of all that it was made of: the text, the target, graphc's own source and LLVM's version.
No entry is written, or taken, once a file of the source is newer than this process, which then runs other code. An
entry begins with a digest of its name and content, so one that is damaged is not taken, but made anew. Nor is any file
that another user could have written. Whatever goes wrong with a file, code is made as if there were none.

The folder is `graphc` in the system's folder for caches, or the one that the environment variable GRAPHC_CACHE names;
set to nothing, no code is kept. Where a file comes from changes no result, so this is no option of a call.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

from graphc import scalar

__all__ = ["code"]

VARIABLE = "GRAPHC_CACHE"
MOST = 2**28  # bytes in all files; beyond them, those that were used last stay
KEPT = MOST * 3 // 4

_STARTED = time.time_ns()
_DIGEST = hashlib.sha256().digest_size
_OURS = re.compile(r"[0-9a-f]{64}(\.[a-z0-9_]+)?")  # an entry, or one that is being written
_OPEN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def code(parts: Sequence[str], make: Callable[[], bytes]) -> bytes:
    """What `make` makes of `parts`, texts that say all that it depends on beside graphc and LLVM."""
    version = _version()
    folder = None if version is None else _folder()
    if version is None or folder is None:
        return make()
    name = hashlib.sha256(b"".join(_framed(part.encode()) for part in (version, *parts))).hexdigest()
    path = folder / name
    found = _read(path)
    if found is not None:
        return found
    made = make()
    with contextlib.suppress(OSError):
        _write(path, made)
        _sweep(folder)
    return made


def _folder() -> Path | None:
    """The folder of entries, if there can be one that nobody else writes to."""
    named = os.environ.get(VARIABLE)
    if named == "":
        return None
    try:
        folder = _usual_folder() if named is None else Path(named).expanduser().absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder if _is_private(folder.stat(), stat.S_ISDIR) else None
    except (OSError, RuntimeError, ValueError):  # no home, for example
        return None


def _usual_folder() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "graphc"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "graphc" / "Cache"
    stated = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (stated if stated.is_absolute() else Path.home() / ".cache") / "graphc"


def _is_private(about: os.stat_result, kind: Callable[[int], bool]) -> bool:
    """Whether this user alone can have written it. Windows has no such bits; its folder is the user's by itself."""
    if not kind(about.st_mode):
        return False
    return sys.platform == "win32" or (about.st_uid == os.geteuid() and not about.st_mode & 0o022)


def _read(path: Path) -> bytes | None:
    """The content of an entry, if it is there and whole."""
    try:
        with open(os.open(path, _OPEN), "rb") as file:
            if not _is_private(os.fstat(file.fileno()), stat.S_ISREG):
                return None
            data = file.read()
        digest, content = data[:_DIGEST], data[_DIGEST:]
        if digest != _seal(path.name, content):
            return None
    except OSError:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # used just now
    return content


def _write(path: Path, content: bytes) -> None:
    """Write an entry. Readers see it whole or not at all; should it not reach the disk whole, its digest says so."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(_seal(path.name, content))
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _sweep(folder: Path) -> None:
    """Remove the entries that were not used for longest, if all together have become too large."""
    with os.scandir(folder) as entries:
        files = [(e.stat(follow_symlinks=False), e.path) for e in entries if _OURS.fullmatch(e.name)]
    size = sum(about.st_size for about, _ in files)
    if size <= MOST:
        return
    for about, path in sorted(files, key=lambda file: file[0].st_mtime):
        if size <= KEPT:
            return
        with contextlib.suppress(OSError):  # somebody else removed it
            os.unlink(path)
        size -= about.st_size


def _seal(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + content).digest()


def _framed(data: bytes) -> bytes:
    """Data with its length, so that what stands side by side cannot be taken apart in another way."""
    return len(data).to_bytes(8, "little") + data


@functools.cache
def _version() -> str | None:
    """A digest of the source of this package and of what it imports, with LLVM's version; none if it cannot be read, or
    was changed since it was imported, as by an editor or an upgrade."""
    digest = hashlib.sha256(repr((llvmlite.__version__, llvm.llvm_version_info)).encode())
    here = Path(__file__).parent
    sources = sorted(path.relative_to(here).as_posix() for path in here.rglob("*.py"))
    try:
        for path in (Path(scalar.__file__), *(here / name for name in sources)):
            about = path.stat()
            if max(about.st_mtime_ns, about.st_ctime_ns) > _STARTED:
                return None
            digest.update(_framed(path.name.encode()) + _framed(path.read_bytes()))
    except OSError:
        return None
    return digest.hexdigest() if sources else None
