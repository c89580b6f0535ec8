"""Find network weights, verify their digest and load them."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperprep.exceptions import WeightsError
from hyperprep.models.spatial.files import replacing

if TYPE_CHECKING:
    import torch

SHIPPED = ("locate", "segment", "hypermorph")
"""Networks that the main job needs."""

ENVIRONMENT = "HYPERPREP_WEIGHTS_DIR"
MANIFEST = "manifest.json"
REQUIRED_KEYS = (
    "file",
    "sha256",
    "bytes",
    "capability",
    "grid",
    "command",
    "seed",
    "steps",
    "data",
    "licence",
    "scores",
    "date",
    "network",
)


@dataclass(frozen=True)
class WeightsEntry:
    """Verified weights on disk.

    Attributes
    ----------
    name
        Name of the network in the manifest.
    path
        The ``.safetensors`` file.
    sha256
        Digest of the file, equal to the manifest's.
    metadata
        The manifest entry: grid, labels, network, training, scores, licence.
    """

    name: str
    path: Path
    sha256: str
    metadata: dict[str, Any]


def package_dir() -> Path:
    """Give the folder of the weights that ship with the package."""
    return Path(__file__).parent


def digest(path: Path) -> str:
    """Give the SHA-256 of a file as hexadecimal digits.

    Examples
    --------
    >>> len(digest(Path(__file__)))
    64
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _folders(path: Path | None, weights_dir: Path | None) -> list[tuple[str, Path]]:
    if path is not None:
        return [("the path given", path.parent)]
    found = [("--weights-dir", weights_dir)] if weights_dir is not None else []
    if os.environ.get(ENVIRONMENT):
        found.append((f"${ENVIRONMENT}", Path(os.environ[ENVIRONMENT])))
    return [*found, ("the package", package_dir())]


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the manifest of a weights folder; an absent one is empty.

    Raises
    ------
    WeightsError
        When the manifest is no valid JSON object of entries with a file and its digest.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return {}
    try:
        content = json.loads(manifest.read_text())
    except OSError as error:
        raise WeightsError(f"{manifest} cannot be read: {error.strerror}. Check its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"{manifest} is not valid JSON ({error}). Export the weights again or restore the file."
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{manifest} must hold one object with an entry for each network.")
    for name, entry in content.items():
        held = entry if isinstance(entry, dict) else {}
        absent = [key for key in ("file", "sha256") if not isinstance(held.get(key), str)]
        if absent:
            raise WeightsError(
                f"{manifest}: the entry '{name}' lacks {' and '.join(absent)}. Export the weights again or "
                "restore the file."
            )
    return content


def write_manifest(folder: Path, manifest: dict[str, dict[str, Any]]) -> None:
    """Write the manifest of a folder of weights; it appears when it is complete."""
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")


def find_entry(name: str, weights_dir: str | Path | None = None) -> dict[str, Any] | None:
    """Give the first manifest entry of a network, without looking at its file; None where there is none.

    Parameters
    ----------
    name
        Name of the network.
    weights_dir
        As in :func:`find_weights`; a folder that does not exist has no entry.

    Raises
    ------
    WeightsError
        When a manifest is damaged.

    Examples
    --------
    >>> find_entry("segment")["network"]["kind"], find_entry("no-such-network")
    ('segment', None)
    """
    folders = _folders(None, Path(weights_dir) if weights_dir is not None else None)
    manifests = (read_manifest(folder) for _, folder in folders)
    return next((manifest[name] for manifest in manifests if name in manifest), None)


def find_weights(
    name: str, *, path: str | Path | None = None, weights_dir: str | Path | None = None
) -> WeightsEntry:
    """Find the weights of a network and verify them.

    Parameters
    ----------
    name
        Name of the network, such as ``"segment"``.
    path
        A ``.safetensors`` file to take; its folder's manifest must have an entry for it.
    weights_dir
        A folder to look in first. After it come ``$HYPERPREP_WEIGHTS_DIR`` and the package.

    Raises
    ------
    WeightsError
        When no folder has them, the file is absent, or its digest differs from the manifest's.
    """
    explicit = Path(path) if path is not None else None
    folder_given = Path(weights_dir) if weights_dir is not None else None
    if folder_given is not None and not folder_given.is_dir():
        raise WeightsError(
            f"The weights folder {folder_given} does not exist or is no folder. Give a folder with a "
            f"{MANIFEST}, or leave the option out."
        )
    looked: list[str] = []
    for origin, folder in _folders(explicit, folder_given):
        entry = read_manifest(folder).get(name)
        if entry is None:
            looked.append(f"{folder} ({origin}: no entry '{name}' in {MANIFEST})")
            continue
        file = explicit if explicit is not None else folder / entry["file"]
        if not file.is_file():
            raise WeightsError(
                f"The manifest in {folder} names {entry['file']} for '{name}', but the file is not there. "
                f"Copy it there, or train and export it: python -m hyperprep.models.train run {name} "
                f"--maps MAPS; python -m hyperprep.models.train export runs/{name} --maps MAPS."
            )
        found = digest(file)
        if found != entry["sha256"]:
            raise WeightsError(
                f"{file} is damaged or not the file that was exported: its sha256 is {found[:16]}..., the "
                f"manifest says {str(entry['sha256'])[:16]}.... Copy the file again."
            )
        return WeightsEntry(name, file, found, entry)
    raise WeightsError(
        f"No weights for '{name}'. Looked in: {'; '.join(looked)}. Point --weights-dir or ${ENVIRONMENT} to "
        f"a folder that has them, or train them: python -m hyperprep.models.train run {name} --maps MAPS."
    )


def find_controls(entry: WeightsEntry, kind: str = "template") -> Path | None:
    """Give the control statistics that ship beside the weights of the network ``topology``, verified.

    Parameters
    ----------
    entry
        Its weights.
    kind
        ``"template"``: scans against the template; ``"sessions"``: one session against another.

    Returns
    -------
    pathlib.Path or None
        None where the manifest names none.

    Raises
    ------
    WeightsError
        When the file is absent or its digest differs from the manifest's.
    """
    known = entry.metadata.get("controls", {}).get(kind)
    if known is None:
        return None
    file = entry.path.parent / str(known["file"])
    if not file.is_file() or digest(file) != known["sha256"]:
        raise WeightsError(
            f"The manifest of {entry.path} names the control statistics {file}, but they are not there or "
            "not the ones that were made for it. Copy the file again, or make it: "
            "python -m hyperprep.models.predict.synthetic_controls --maps MAPS."
        )
    return file


def load_state(entry: WeightsEntry) -> dict[str, torch.Tensor]:
    """Load verified weights as float32 tensors.

    Raises
    ------
    WeightsError
        When the file cannot be read as safetensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored = load_file(entry.path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{entry.path} cannot be read as safetensors ({error}). Copy the file again."
        ) from error
    return {key: value.to(torch.float32) for key, value in stored.items()}
