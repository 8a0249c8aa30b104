"""Zip archives as trees, read in place."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

from pipeline.data.sources.archive import Archive


class Zip(Archive[zipfile.ZipInfo]):
    """A zip archive, its files stored or deflated.

    Raises:
        ValueError: it is damaged, encrypted, or compressed in another way.
    """

    def __init__(self, path: Path, spec: str) -> None:
        super().__init__(path, spec)
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"data {spec}: {path} is not a whole zip archive ({error})") from None
        for member in members:
            if member.flag_bits & 1 or member.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
            ):
                raise ValueError(
                    f"data {spec}: {member.filename} in {path} is encrypted or compressed in an "
                    "unusual way: unpack the archive"
                )
            name = member.filename.strip("/")
            if name.startswith("__MACOSX"):
                continue
            if member.is_dir():
                self.add_folder(name)
            else:
                self.add(name, member)

    def read(self, file: str) -> bytes:
        """See `Tree`; by hand, since the module's reader shares one position among threads."""
        member = self.place(file)
        header = self.pread(member.header_offset, 30)
        lengths = struct.unpack_from("<HH", header, 26)  # of name and extra field
        data = self.pread(member.header_offset + 30 + sum(lengths), member.compress_size)
        if member.compress_type == zipfile.ZIP_DEFLATED:
            try:
                data = zlib.decompressobj(-15).decompress(data, member.file_size + 1)
            except zlib.error as error:
                raise OSError(f"damaged in the archive: {error}") from None
        if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
            raise OSError("damaged in the archive: its checksum is another")
        return data

    def length(self, place: zipfile.ZipInfo) -> int:
        """See `Archive`."""
        return place.file_size
