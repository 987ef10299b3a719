"""Files that are written whole or not at all, and files that one process writes again and again."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from graphc.errors import ArgumentError

try:
    import fcntl
except ImportError:  # not on Windows: there a claim claims nothing
    fcntl = None  # type: ignore[assignment]

ABANDONED = 3600.0  # seconds without a byte, after which a temporary file's writer is taken for dead


def write_whole(path: Path | str, data: bytes) -> None:
    """Write a file. Until the new one is complete and on disk, the old one stays as it was.

    Folders on the way are made. Raises `OSError` if the file cannot be written. What a process that was killed while it
    wrote has left behind is removed.
    """
    _write(Path(path), data).close()


def _write(path: Path, data: bytes, *, locked: bool = False) -> BinaryIO:
    """Write a file, and return it, still open if it is to stay locked."""
    path = path.resolve()  # a link stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:32]}.{secrets.token_hex(8)}")
    try:
        with contextlib.ExitStack() as undone:
            undone.callback(_remove, temporary)
            file = undone.enter_context(temporary.open("xb"))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            written = os.fstat(file.fileno()).st_mtime
            if locked:
                _lock(file)
            else:
                file.close()
            os.replace(temporary, path)
            undone.pop_all()
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None  # not the temporary one
    _sweep(path, written)
    return file


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _sweep(path: Path, now: float) -> None:
    """Remove what killed writers of this path have left. The time is that of the file system's own clock."""
    ours = re.compile(rf"\.{re.escape(path.name[:32])}\.[0-9a-f]{{16}}")
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if ours.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    about = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(about.st_mode) and now - about.st_mtime > ABANDONED:
                        os.unlink(entry.path)


class Claim:
    """A file that one process writes again and again, while others are refused.

    The lock is on the file itself: there is no other file, and it ends with the process, however that ends. A new
    version is locked before it takes the old one's place. Where a system has no such locks, nobody is refused.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._held: BinaryIO | None = None

    def __enter__(self) -> Self:
        while fcntl is not None and self._held is None and self.path.is_file():
            self._held = file = self.path.open("rb")
            if not _lock(file):
                self._release()
                raise ArgumentError(
                    f"another process is writing {self.path}: training that goes on there; wait for it, or give "
                    "another path"
                )
            if not self._is_there(file):  # replaced in between
                self._release()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._release()

    def write(self, data: bytes) -> None:
        """Write the file whole. Raises `ArgumentError` if somebody else has put another in its place."""
        if self._held is not None and not self._is_there(self._held) and self.path.exists():
            raise ArgumentError(f"another process has written {self.path} meanwhile; this one leaves it as it is")
        file = _write(self.path, data, locked=fcntl is not None)
        self._release()
        self._held = None if file.closed else file

    def _is_there(self, file: BinaryIO) -> bool:
        """Whether the path still leads to this file."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except OSError:
            return False

    def _release(self) -> None:
        if self._held is not None:
            self._held.close()
        self._held = None


def _lock(file: BinaryIO) -> bool:
    """Lock an open file; false if another process has."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # the file system has no locks
            pass
    return True
