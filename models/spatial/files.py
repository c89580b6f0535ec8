"""Files that are complete from the moment they carry their final name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hyperprep.exceptions import OutputError


def split_suffix(path: Path) -> tuple[str, str]:
    """Split a file's name and suffix; ``.nii.gz`` counts as one suffix.

    Examples
    --------
    >>> split_suffix(Path("a/sub-01_T1w.nii.gz"))
    ('sub-01_T1w', '.nii.gz')
    >>> split_suffix(Path("from-a_to-b_xfm.h5"))
    ('from-a_to-b_xfm', '.h5')
    """
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    return path.name.removesuffix(suffix), suffix


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside ``path`` (same suffix) that becomes ``path`` when the block ends well.

    Missing folders are made. When the block raises, the temporary file is removed, ``path`` stays as it was.

    Raises
    ------
    OutputError
        If the folder cannot be made or written.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "new" / "notes.txt"
    >>> with replacing(target) as temporary:
    ...     _ = temporary.write_text("complete")
    >>> target.read_text(), len(list(target.parent.iterdir()))
    ('complete', 1)
    """
    target = Path(path).absolute()
    stem, suffix = split_suffix(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{stem}.", suffix=suffix, dir=target.parent)
    except OSError as error:
        raise OutputError(
            f"Cannot write {target}: {error.strerror or error}. Choose a folder on a writable disk."
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(f"Writing {target} failed: {error.strerror or error}. Is the disk full?") from error
    finally:
        temporary.unlink(missing_ok=True)
