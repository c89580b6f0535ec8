"""Write trained weights for shipping: fp16 safetensors, manifest entry, model card."""

from __future__ import annotations

import datetime
import json
import os
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch

from hyperprep.exceptions import NoInputError, UsageError
from hyperprep.models.nets.build import SEGMENTING, build_network, describe_features
from hyperprep.models.train.topology import TopologyTask
from hyperprep.models.weights import resolver

_CAPABILITY = {
    "locate": "Rough whole-head segmentation at any position: brain mask and label centroids for affine "
    "prealignment",
    "segment": "Conditional whole-brain segmentation (CoNeMOS conditioning)",
    "hypermorph": "Deformable registration with the regularisation weight as input (HyperMorph)",
    "semantic": "Whole-brain segmentation whose encoder's features tell tissues and structures apart, for "
    "topology-change maps",
    "topology": "Topology-change maps: registration as a conditional variational auto-encoder",
}
_MEASURED = {"": "hard Dice", "topology": "parts of the bound (nats per voxel), prior and local correlation"}
_DATA = "20 adult head label maps of the SynthSeg project, images synthesised from them; no real image"


def _describe(config: dict[str, Any]) -> dict[str, Any]:
    """Give the part of the manifest entry that depends on the network."""
    entry: dict[str, Any] = {
        "grid": {"orientation": "RAS", **config["lattice"]},
        "intensity": "0.5 and 99.5 percentile inside the brain to 0 and 1, clipped",
        "network": {"kind": config["network"], **config.get("model", {})},
    }
    if config["network"] in SEGMENTING:
        from hyperprep.models.train.segmentation import INTENSITY_TISSUES, REGIONS, STRUCTURES

        if entry["network"].get("atlas"):
            entry["network"]["tissues"] = len(INTENSITY_TISSUES) + 1
        entry["labels"] = [str(n) for n in STRUCTURES] + list(REGIONS)
    if config["network"] == "topology":
        entry["network"] = describe_topology(config.get("model", {}))
    return entry


def describe_topology(model: dict[str, Any]) -> dict[str, Any]:
    """Describe a topology network by the ``[model]`` table of its configuration.

    Raises
    ------
    WeightsError
        When the segmentation network whose features it compares is not found.

    Examples
    --------
    >>> describe_topology({"features": "image", "channels": [4, 8]})["channels"]
    [4, 8]
    """
    named = {f.name: f.default for f in fields(TopologyTask) if f.init and f.default is not MISSING}
    chosen = {key: model.get(key, named[key]) for key in ("dims", "channels", "norm", "reduction", "start")}
    name = model.get("features", named["features"])
    features = None if name == "image" else describe_features(resolver.find_weights(name))
    return {"kind": "topology", **chosen, "channels": list(chosen["channels"]), "features": features}


def centroids_of_maps(maps_file: Path) -> dict[str, list[float]]:
    """Give the mean centroid of every structure over the prepared label maps.

    Returns
    -------
    dict
        FreeSurfer number, as text, to RAS mm in the template frame.

    Raises
    ------
    NoInputError
        When the file is not there.
    """
    import numpy as np

    from hyperprep.models.synth.maps import ORIGIN_MM, load_maps
    from hyperprep.models.train.segmentation import STRUCTURES

    maps = load_maps(maps_file)
    table, count = maps.lookup(STRUCTURES).numpy(), len(STRUCTURES) + 1
    means = []
    for one in maps.maps.numpy():
        structure = table[one]
        sums = np.zeros((3, count))
        for axis in range(3):
            for place, plane in enumerate(np.moveaxis(structure, axis, 0)):
                sums[axis] += place * np.bincount(plane.ravel(), minlength=count)
        means.append((sums / np.bincount(structure.ravel(), minlength=count)).T[1:])
    mean = np.nanmean(np.array(means), axis=0) + np.array(ORIGIN_MM)
    return {str(n): [round(float(v), 2) for v in row] for n, row in zip(STRUCTURES, mean, strict=True)}


def export(
    run_dir: str | Path,
    *,
    out_dir: str | Path | None = None,
    scores: dict[str, float] | None = None,
    maps_file: str | Path | None = None,
) -> Path:
    """Export a finished run.

    Parameters
    ----------
    run_dir
        Folder of the run: ``model.pt`` (or ``checkpoint.pt``) and ``config.toml``.
    out_dir
        Folder of weights and manifest; the package's own when not given.
    scores
        Measured figures to write beside the validation ones of the run.
    maps_file
        Prepared label maps, for the centroids that the ``locate`` network's user needs.

    Returns
    -------
    pathlib.Path
        The ``.safetensors`` file.

    Raises
    ------
    NoInputError
        When the run has no model yet.
    UsageError
        When the label maps that ``locate`` needs are not given.
    """
    from safetensors.torch import save_file

    run_dir, out = Path(run_dir), Path(out_dir) if out_dir is not None else resolver.package_dir()
    source = next((run_dir / n for n in ("model.pt", "checkpoint.pt") if (run_dir / n).exists()), None)
    if source is None or not (run_dir / "config.toml").exists():
        raise NoInputError(f"{run_dir} holds no trained network (model.pt and config.toml). Train it first.")
    if maps_file is None and tomllib.loads((run_dir / "config.toml").read_text())["network"] == "locate":
        raise UsageError(
            "The network 'locate' is exported with the mean centres of its label maps: add --maps MAPS."
        )
    stored = torch.load(source, map_location="cpu", weights_only=True)
    config = tomllib.loads((run_dir / "config.toml").read_text())
    name = config["network"]
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{name}.safetensors"
    partial = out / f".{name}.{os.getpid()}.safetensors"
    described = _describe(config)
    if name == "topology":
        build_network(described["network"]).load_state_dict(stored["average"])
    save_file({k: _stored(v) for k, v in stored["average"].items()}, partial)
    os.replace(partial, file)
    history = [json.loads(line) for line in (run_dir / "curve.jsonl").read_text().splitlines()]
    validation: dict[str, Any] = next(
        (row for row in reversed(history) if any(k.startswith("val_") for k in row)), {}
    )
    entry = {
        "file": file.name,
        "sha256": resolver.digest(file),
        "bytes": file.stat().st_size,
        "capability": _CAPABILITY[name],
        **described,
        "command": f"python -m hyperprep.models.train run {_configuration(config)} --maps MAPS "
        f"--max-time {stored['seconds'] / 60:.0f}",
        "seed": config.get("seed", 0),
        "steps": stored["step"],
        "training_seconds": round(stored["seconds"]),
        "data": _DATA,
        "data_licence": "Apache-2.0",
        "licence": "Apache-2.0",
        "scores": {**{k: v for k, v in validation.items() if k.startswith("val_")}, **(scores or {})},
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }
    if maps_file is not None and name == "locate":
        entry["template_centroids"] = centroids_of_maps(Path(maps_file))
    manifest = resolver.read_manifest(out)
    manifest[name] = entry
    for path, text in (
        (out / resolver.MANIFEST, json.dumps(manifest, indent=1) + "\n"),
        (out / f"{name}.md", model_card(name, entry)),
    ):
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text)
        os.replace(temporary, path)
    return file


def _configuration(config: dict[str, Any]) -> str:
    """Name the shipped configuration that a run had, or else say that it had its own."""
    folder = Path(__file__).parent / "configs"
    names = (p.stem for p in sorted(folder.glob("*.toml")) if tomllib.loads(p.read_text()) == config)
    return next(names, "CONFIG.toml")


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    """Give a tensor as weights store it: half precision, whole numbers as they are."""
    return (tensor.half() if tensor.is_floating_point() else tensor).contiguous()


def model_card(name: str, entry: dict[str, Any]) -> str:
    """Write the model card of a manifest entry in Markdown.

    Examples
    --------
    >>> entry = resolver.read_manifest(resolver.package_dir())["segment"]
    >>> model_card("segment", entry).splitlines()[0]
    '# segment'
    """
    scores = "\n".join(f"| {key} | {value:g} |" for key, value in sorted(entry["scores"].items()))
    return (
        f"# {name}\n\n{entry['capability']}.\n\n"
        f"- File: `{entry['file']}`, {entry['bytes']} bytes, sha256 `{entry['sha256']}`\n"
        f"- Grid: {entry['grid']}\n- Intensity: {entry['intensity']}\n- Network: {entry['network']}\n"
        f"- Trained {entry['steps']} steps in {entry['training_seconds'] / 60:.0f} minutes "
        f"on {entry['data']} (licence of the maps: {entry['data_licence']}), seed {entry['seed']}, "
        f"{entry['date']}\n"
        f"- Command: `{entry['command']}`\n- Licence: {entry['licence']}\n\n"
        f"## Measured\n\n`val_*`: {_MEASURED.get(name, _MEASURED[''])} on synthetic images of heads kept "
        "out of training.\n\n"
        f"| figure | value |\n|---|---|\n{scores}\n\n"
        "## Limits\n\nAdult heads only; no pathology was seen in training. Not a medical device.\n"
    )
