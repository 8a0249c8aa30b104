"""Tars as trees: plain ones, ImageNet's tar of tars, and what is needed of compressed ones.

Notable:
- A tar is never unpacked, and pixels are not read while its members are listed: the headers are
  sought out one by one. ImageNet's inner archives are listed by several threads, since on a network
  disk that is a matter of waiting.
- A tar that ends without its end mark is refused: Python's module takes a cut archive, and rubbish
  between members, for a complete one.
- A compressed tar cannot be sought in; of CIFAR's and the devkit the few files are kept in memory.
"""

from __future__ import annotations

import io
import os
import tarfile
import zlib
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.data.sources.archive import Archive

Span = tuple[int, int]
"""First byte and number of bytes."""

BLOCK = 512
LISTING_THREADS = 16


class Tar(Archive[Span]):
    """An uncompressed tar.

    Raises:
        ValueError: it is none, is cut, or holds links.
    """

    def __init__(self, path: Path, spec: str) -> None:
        super().__init__(path, spec)
        self._index()

    def _index(self) -> None:
        for name, member in self._members(0, os.fstat(self._fd).st_size, ""):
            if member.isdir():
                self.add_folder(name)
            else:
                self.add(name, (member.offset_data, member.size))

    def read(self, file: str) -> bytes:
        """See `Tree`."""
        start, size = self.place(file)
        return self.pread(start, size)

    def length(self, place: Span) -> int:
        """See `Archive`."""
        return place[1]

    def _members(self, start: int, size: int, inner: str) -> Iterator[tuple[str, tarfile.TarInfo]]:
        """Names and headers of the tar that lies in these bytes of the file.

        Args:
            inner: the archive in the archive, for messages.
        """
        where = f"data {self._spec}: {self.path}{inner and ':' + inner}"
        end = 0
        try:
            window = _Window(self._fd, start, size)
            with tarfile.open(fileobj=window, mode="r:") as archive:
                while (member := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined] # it would keep them all
                    name = _plain(member.name)
                    if not member.isdir() and (not member.isreg() or member.issparse()):
                        raise ValueError(
                            f"{where}: {name} is a link or no plain file: pack the archive again "
                            "with tar --dereference --hard-dereference"
                        )
                    if member.isreg():
                        end = member.offset_data + -(-member.size // BLOCK) * BLOCK
                    else:
                        end = member.offset_data
                    yield name, member
            # The module takes a cut archive, or rubbish between members, for its end.
            window.seek(end)
            if window.read(BLOCK) != bytes(BLOCK):
                raise tarfile.ReadError(f"no end mark at byte {end}")
        except (tarfile.TarError, OSError) as error:
            raise ValueError(
                f"{where} is not a whole, uncompressed tar archive ({error}): fetch it again, "
                "unpack it, or pack it again without compression"
            ) from None


class NestedTars(Tar):
    """A tar of tars: a folder for every inner archive, called like it without .tar.

    Opening it finds the inner archives; all are listed when the first of them is looked into.
    """

    def _index(self) -> None:
        self._unlisted: list[tuple[str, Span]] = []
        for name, member in self._members(0, os.fstat(self._fd).st_size, ""):
            if not name.endswith(".tar") or "/" in name or not member.isreg():
                raise ValueError(
                    f"data {self._spec}: {self.path} holds {name}, where only archives of one "
                    "class each are expected"
                )
            self.add_folder(name.removesuffix(".tar"))
            self._unlisted.append((name, (member.offset_data, member.size)))

    def listing(self, folder: str) -> tuple[list[str], list[str]]:
        """See `Tree`."""
        if folder and self._unlisted:
            with ThreadPoolExecutor(LISTING_THREADS) as pool:
                listings = pool.map(self._inner, self._unlisted)
                for (name, _), spans in zip(self._unlisted, listings, strict=True):
                    self.add_folder(name.removesuffix(".tar")).update(spans)
            self._unlisted = []
        return super().listing(folder)

    def _inner(self, archive: tuple[str, Span]) -> dict[str, Span]:
        name, (start, size) = archive
        return {
            file.rpartition("/")[2]: (start + member.offset_data, member.size)
            for file, member in self._members(start, size, name)
            if member.isreg()
        }


class CompressedTar(Archive[bytes]):
    """Some files of a compressed tar, in memory.

    Args:
        wanted: the names of these files, in whatever folder.

    Raises:
        ValueError: it is no tar or damaged.
    """

    def __init__(self, path: Path, spec: str, wanted: Collection[str]) -> None:
        super().__init__(path, spec)
        try:
            with tarfile.open(path, "r:*") as archive:
                for member in archive:
                    name = _plain(member.name)
                    file = archive.extractfile(member) if member.isreg() else None
                    if file is not None and name.rpartition("/")[2] in wanted:
                        self.add(name, file.read())
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"data {spec}: {path} is not a whole tar archive ({error}): fetch it again"
            ) from None

    def read(self, file: str) -> bytes:
        """See `Tree`."""
        return self.place(file)

    def length(self, place: bytes) -> int:
        """See `Archive`."""
        return len(place)


def _plain(name: str) -> str:
    """Without "./" and the like."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


class _Window(io.RawIOBase):
    """Some bytes of an open file as a file of their own; reads no more than is asked for."""

    def __init__(self, fd: int, start: int, size: int) -> None:
        self._fd, self._start, self._size, self._at = fd, start, size, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        assert whence == os.SEEK_SET
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        data = os.pread(self._fd, left if size < 0 else min(size, left), self._start + self._at)
        self._at += len(data)
        return data
