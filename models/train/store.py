"""Write weights beside their manifest entry and model card."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hyperprep.models.spatial.files import replacing
from hyperprep.models.train.card import model_card
from hyperprep.models.weights import resolver


def write_entries(out: Path, manifest: dict[str, Any], names: list[str]) -> None:
    """Write the manifest, and the model cards of some of its entries."""
    cards = [(out / f"{name}.md", model_card(name, manifest[name])) for name in names]
    resolver.write_manifest(out, manifest)
    for path, text in cards:
        with replacing(path) as temporary:
            temporary.write_text(text)


def last_validation(run_dir: Path) -> dict[str, float]:
    """Give the figures of a run's last validation, by names that begin with ``val_``; none without one."""
    history = [json.loads(line) for line in (run_dir / "curve.jsonl").read_text().splitlines()]
    found = ({k: v for k, v in row.items() if k.startswith("val_")} for row in reversed(history))
    return next((figures for figures in found if figures), {})


def store(name: str, state: Mapping[str, torch.Tensor], entry: Mapping[str, Any], out: Path) -> Path:
    """Write weights, their manifest entry and model card; each file appears when it is complete.

    Parameters
    ----------
    name
        Name of the network.
    state
        Its tensors; floating-point ones are stored in half precision.
    entry
        What the manifest says but for file, digest, size and date. What was added since to an entry of the
        same weights (calibration, statistics of controls) stays.
    out
        Folder of weights and manifest; other networks' entries stay.

    Returns
    -------
    pathlib.Path
        The ``.safetensors`` file.
    """
    from safetensors.torch import save_file

    file = out / f"{name}.safetensors"
    with replacing(file) as partial:
        save_file({k: _stored(v) for k, v in state.items()}, partial)
    manifest = resolver.read_manifest(out)
    sha256 = resolver.digest(file)
    before = manifest.get(name, {})
    manifest[name] = {
        **(before if before.get("sha256") == sha256 else {}),
        "file": file.name,
        "sha256": sha256,
        "bytes": file.stat().st_size,
        **entry,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }
    write_entries(out, manifest, [name])
    return file


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    """Give a tensor as weights store it: half precision, whole numbers as they are."""
    return (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
