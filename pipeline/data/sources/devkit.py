"""ImageNet's development kit: its class numbers, its names, and the ground truth of val.

Notable: it numbers the classes from 1 in an order of its own; only the wnid connects that with the
labels used everywhere. `meta.mat` also lists the 860 inner nodes of the hierarchy, which are no
classes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.data.sources.tar import CompressedTar
from pipeline.data.sources.tree import FolderTree, Tree, has_file, join
from pipeline.data.sources.wnids import WNID, first_synonym

NAME = "ILSVRC2012_devkit_t12"
META = "meta.mat"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"


@dataclass(frozen=True)
class Devkit:
    """The devkit's `data` folder, on disk or in its archive."""

    tree: Tree
    folder: str
    spec: str

    def synsets(self) -> dict[int, tuple[str, str]]:
        """wnid and name of every class by the devkit's number.

        Raises:
            ValueError: meta.mat is missing or of another make.
        """
        from scipy.io import loadmat

        try:
            table = loadmat(io.BytesIO(self._read(META)), squeeze_me=True)["synsets"]
            leaves = [row for row in table.reshape(-1) if int(row["num_children"]) == 0]
            synsets = {
                int(row["ILSVRC2012_ID"]): (str(row["WNID"]), first_synonym(str(row["words"])))
                for row in leaves
            }
        except OSError:
            raise ValueError(self._lacks(META, "which gives the devkit's numbers wnids")) from None
        except Exception as error:  # SciPy's reader raises anything at a damaged file
            raise ValueError(
                f"data {self.spec}: {self._where(META)} is not the devkit's list of classes "
                f"({error}): fetch {NAME}.tar.gz again"
            ) from None
        wrong = next((wnid for wnid, _ in synsets.values() if not WNID.fullmatch(wnid)), None)
        if wrong is not None or not synsets:
            raise ValueError(
                f"data {self.spec}: {self._where(META)} names {wrong!r}, which is no wnid: fetch "
                f"{NAME}.tar.gz again"
            )
        return synsets

    def truth(self) -> list[str]:
        """The wnid of every picture of val, in their order.

        Raises:
            ValueError: a file is missing, or a line is no number of a class.
        """
        try:
            lines = self._read(TRUTH).decode().split()
        except OSError:
            raise ValueError(
                self._lacks(TRUTH, "which gives the pictures of val classes")
            ) from None
        synsets = self.synsets()
        wnids = []
        for number, line in enumerate(lines, 1):
            if not line.isdecimal() or int(line) not in synsets:
                raise ValueError(
                    f"data {self.spec}: line {number} of {self._where(TRUTH)} is {line!r}, which "
                    f"{META} does not list as a class: fetch {NAME}.tar.gz again"
                )
            wnids.append(synsets[int(line)][0])
        return wnids

    @property
    def where(self) -> str:
        """The list of val's classes, for messages."""
        return self._where(TRUTH)

    def _read(self, name: str) -> bytes:
        return self.tree.read(join(self.folder, name))

    def _where(self, name: str) -> str:
        return self.tree.describe(join(self.folder, name))

    def _lacks(self, name: str, purpose: str) -> str:
        return f"data {self.spec}: {self._where(name)}, {purpose}, is missing: take it from {NAME}"


def find_devkit(tree: Tree, folders: Iterable[str], spec: str) -> Devkit | None:
    """The devkit, unpacked or as its .tar.gz, in one of the folders.

    Raises:
        ValueError: the archive is damaged.
    """
    for folder in folders:
        data = join(folder, f"{NAME}/data")
        if has_file(tree, f"{data}/{TRUTH}") or has_file(tree, f"{data}/{META}"):
            return Devkit(tree, data, spec)
        archive = join(folder, f"{NAME}.tar.gz")
        if isinstance(tree, FolderTree) and has_file(tree, archive):
            kit = CompressedTar(tree.path / archive, spec, (META, TRUTH))
            return Devkit(kit, f"{NAME}/data", spec)
    return None


def devkit_names(tree: Tree, folders: Iterable[str], spec: str) -> dict[str, str]:
    """Readable names by wnid from the devkit; {} if there is none."""
    kit = find_devkit(tree, folders, spec)
    return dict(kit.synsets().values()) if kit else {}
