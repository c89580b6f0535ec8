"""Images of a BIDS folder that need no index: path, entities and suffix by name alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class NamedFile:
    """One file: its path and what its name says.

    Examples
    --------
    >>> NamedFile.of(Path("sub-01_ses-2_desc-brain_mask.nii.gz")).subject
    'sub-01_ses-2'
    """

    path: Path
    entities: Mapping[str, str]
    suffix: str

    @classmethod
    def of(cls, path: Path) -> NamedFile:
        """Read a file's name."""
        *parts, suffix = path.name.split(".", 1)[0].split("_")
        return cls(path, dict(part.split("-", 1) for part in parts if "-" in part), suffix)

    @property
    def subject(self) -> str:
        """Participant and session, as file names begin."""
        session = self.entities.get("ses")
        return f"sub-{self.entities.get('sub')}" + (f"_ses-{session}" if session else "")

    @property
    def desc(self) -> str | None:
        """The description, if the name has one."""
        return self.entities.get("desc")

    def is_mask(self) -> bool:
        """Whether it holds labels rather than intensities."""
        return self.suffix in ("mask", "dseg")


def images_of(folder: Path, participants: Collection[str] | None = None) -> list[NamedFile]:
    """List the images in folders called ``sub-<label>``, figures left out, by path.

    Parameters
    ----------
    folder
        Root of a dataset or derivative.
    participants
        Only these, without ``sub-``; all when not given.
    """
    roots = [folder / f"sub-{label}" for label in participants] if participants is not None else None
    found = sorted(
        p
        for root in (sorted(folder.glob("sub-*")) if roots is None else roots)
        for p in root.glob("**/*.nii*")
    )
    return [
        NamedFile.of(path)
        for path in found
        if "figures" not in path.relative_to(folder).parts and not path.name.startswith(".")
    ]
