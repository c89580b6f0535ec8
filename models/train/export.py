"""Write trained weights for shipping: fp16 safetensors, manifest entry, model card."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch

from hyperprep.exceptions import NoInputError, UsageError
from hyperprep.models.nets.build import SEGMENTING, build_network, describe_features
from hyperprep.models.train import configure
from hyperprep.models.train.places import places_of_maps
from hyperprep.models.train.store import last_validation, store, write_entries
from hyperprep.models.train.topology import TopologyTask
from hyperprep.models.weights import resolver

_CAPABILITY = {
    "locate": "Rough whole-head segmentation at any position: brain mask and label centroids for affine "
    "prealignment",
    "segment": "Conditional whole-brain segmentation (CoNeMOS conditioning)",
    "hypermorph": "Deformable registration with the regularisation weight as input (HyperMorph)",
    "neuralizer": "Tasks from a handful of examples, slice by slice (Neuralizer)",
    "semantic": "Whole-brain segmentation whose encoder's features tell tissues and structures apart, for "
    "topology-change maps",
    "topology": "Topology-change maps: registration as a conditional variational auto-encoder",
}
_INTENSITY = {"percentiles": [0.5, 99.5], "inside": "brain"}
"""Percentiles inside the brain that become 0 and 1; what lies beyond is clipped."""
_THRESHOLDS = {
    "locate": {"brain": 0.5, "structure": 0.3},
    "segment": {"brain": 0.1, "structure": 0.3},
}
"""Probability from which a voxel is brain or structure. The mask of ``segment`` is cautious: on three scans,
cut at 0.3 it is 8 to 10 % too small, at 0.1 within 5 %."""
_ARCHITECTURE = ("channels", "levels", "start")
"""Of a few-shot network's options, those that its weights depend on."""

_DATA = "20 adult head label maps of the SynthSeg project, images synthesised from them; no real image"


def config_words(config: dict[str, Any]) -> str:
    """Say by which configuration and settings a run was trained; CONFIG.toml for one that is not like any.

    Of the configurations that ship, the one with the fewest settings between is named.
    """
    found = []
    for one in sorted((Path(__file__).parent / "configs").glob("*.toml")):
        shipped = configure.read_config(one)
        between = configure.settings_between(shipped, config)
        if shipped["network"] == config["network"] and between is not None:
            found.append(" ".join([one.stem, *(f"--set {setting}" for setting in between)]))
    return min(found, key=lambda words: words.count(" --set "), default="CONFIG.toml")


def _low_rank(
    entry: dict[str, Any], state: dict[str, torch.Tensor], rank: int | None, max_error: float | None
) -> dict[str, torch.Tensor]:
    """Factorise the last layer of a registration hypernetwork, and say so in its manifest entry."""
    from hyperprep.models.nets.hypermorph import HyperMorph
    from hyperprep.models.train.low_rank import factorise

    network = HyperMorph.from_description(entry["network"])
    network.load_state_dict(state)
    made, cost = factorise(
        network.hyper.hypernetwork, entry["network"]["n_hyper"], rank=rank, max_error=max_error
    )
    entry["network"]["rank"] = cost.rank
    entry["low_rank"] = cost.described()
    return {f"hyper.hypernetwork.{name}": value for name, value in made.items()}


def _describe(config: dict[str, Any]) -> dict[str, Any]:
    """Give the part of the manifest entry that depends on the network."""
    entry: dict[str, Any] = {
        "grid": {"orientation": "RAS", **config["lattice"]},
        "network": {"kind": config["network"], **config.get("model", {})},
        **rules_of(config["network"]),
    }
    if config["network"] == "hypermorph":
        from hyperprep.models.nets.hyperparameters import hyperparameters_of

        model = config.get("model", {})
        chosen = {k: model[k] for k in ("windows", "defaults") if k in model}
        known = hyperparameters_of(model.get("hyperparameters", ["lambda"]), **chosen)
        entry["network"]["n_hyper"] = len(known)
        entry["hyperparameters"] = [one.described() for one in known]
    if config["network"] in SEGMENTING:
        from hyperprep.models.synth.structures import INTENSITY_TISSUES, REGIONS, STRUCTURES

        if entry["network"].get("atlas"):
            entry["network"]["tissues"] = len(INTENSITY_TISSUES) + 1
        entry["labels"] = [str(n) for n in STRUCTURES] + list(REGIONS)
    if config["network"] == "neuralizer":
        model = entry["network"]
        entry["network"] = {k: v for k, v in model.items() if k in ("kind", *_ARCHITECTURE)}
        entry["most_context"] = model.get("most_context", 32)
        entry["held_out"] = {k: model.get(f"held_out_{k}") for k in ("structures", "contrast")}
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
    features = None
    if name != "image":
        features = describe_features(resolver.find_weights("segment" if name == "tissues" else name))
    if name == "tissues" and features is not None:
        kept = {key: features[key] for key in ("shape", "sha256")}
        features = {"kind": "tissues", "n_tissues": features["tissues"], **kept}
    return {"kind": "topology", **chosen, "channels": list(chosen["channels"]), "features": features}


def rules_of(name: str) -> dict[str, Any]:
    """Give what a manifest entry says of the use of a network: intensity rule and thresholds.

    Examples
    --------
    >>> rules_of("segment")["threshold"]["brain"]
    0.1
    """
    rules: dict[str, Any] = {"intensity": _INTENSITY}
    if name in _THRESHOLDS:
        rules["threshold"] = _THRESHOLDS[name]
    return rules


def places_for(name: str, places: Mapping[str, Any]) -> dict[str, Any]:
    """Choose what the user of a network needs of the places of things: of ``segment``, the brain's alone.

    Examples
    --------
    >>> sorted(places_for("segment", {"template_centroids": {}, "template_brain": {}}))
    ['template_brain']
    """
    wanted = {"locate": ("template_centroids", "template_brain"), "segment": ("template_brain",)}
    return {key: places[key] for key in wanted.get(name, ()) if key in places}


def describe(
    out_dir: str | Path | None = None,
    *,
    maps_file: str | Path | None = None,
    places: Mapping[str, Any] | None = None,
) -> Path:
    """Write the rules of use of weights that were exported before into their manifest and model cards.

    Weights and their digests stay as they are.

    Parameters
    ----------
    out_dir
        Folder of weights and manifest; the package's own when not given.
    maps_file
        Prepared label maps; with them the places that ``locate`` and ``segment`` need are written too.
    places
        These places, where they are known without the maps; see :func:`places_of_maps`.

    Returns
    -------
    pathlib.Path
        The manifest.

    Raises
    ------
    NoInputError
        When there is no manifest, or no such label maps.
    """
    out = Path(out_dir) if out_dir is not None else resolver.package_dir()
    manifest = resolver.read_manifest(out)
    if not manifest:
        raise NoInputError(
            f"{out} has no {resolver.MANIFEST} with an entry. Give the folder of exported weights."
        )
    if maps_file is not None:
        places = places_of_maps(Path(maps_file))
    for name, entry in manifest.items():
        entry.update(rules_of(name))
        entry.update(places_for(name, places or {}))
    write_entries(out, manifest, list(manifest))
    return out / resolver.MANIFEST


def export(
    run_dir: str | Path,
    *,
    out_dir: str | Path | None = None,
    scores: dict[str, float] | None = None,
    maps_file: str | Path | None = None,
    rank: int | None = None,
    max_error: float | None = None,
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
    rank, max_error
        Store the last layer of a hypernetwork as a factorisation of this rank, or of the smallest rank whose
        relative error stays below ``max_error`` over the whole range of the hyperparameters; the error is
        measured and written. The whole layer is stored when neither is given.

    Returns
    -------
    pathlib.Path
        The ``.safetensors`` file.

    Raises
    ------
    NoInputError
        When the run has no model yet.
    UsageError
        When the label maps that ``locate`` needs are not given, or a factorisation is asked for that cannot
        be.
    """
    run_dir, out = Path(run_dir), Path(out_dir) if out_dir is not None else resolver.package_dir()
    source = next((run_dir / n for n in ("model.pt", "checkpoint.pt") if (run_dir / n).exists()), None)
    if source is None or not (run_dir / "config.toml").exists():
        raise NoInputError(f"{run_dir} holds no trained network (model.pt and config.toml). Train it first.")
    config = tomllib.loads((run_dir / "config.toml").read_text())
    if maps_file is None and config["network"] == "locate":
        raise UsageError(
            "The network 'locate' is exported with the mean centres of its label maps: add --maps MAPS."
        )
    stored = torch.load(source, map_location="cpu", weights_only=True)
    name, state, described = config["network"], stored["average"], _describe(config)
    if rank is not None or max_error is not None:
        if name != "hypermorph":
            raise UsageError(f"Only a hypernetwork's last layer is factorised; '{name}' has none.")
        state = _low_rank(described, state, rank, max_error)
    if name == "topology":
        build_network(described["network"]).load_state_dict(state)
    entry = {
        "capability": _CAPABILITY[name],
        **described,
        "command": f"python -m hyperprep.models.train run {config_words(config)} --maps MAPS "
        f"--max-time {stored['seconds'] / 60:.0f}",
        "seed": config.get("seed", 0),
        "steps": stored["step"],
        "training_seconds": round(stored["seconds"]),
        "data": _DATA,
        "data_licence": "Apache-2.0",
        "licence": "Apache-2.0",
        "scores": {**last_validation(run_dir), **(scores or {})},
    }
    before = config.get("model", {}).get("begin_from", "")
    if before:
        known = resolver.find_weights(before)
        entry["begun_from"] = {
            "sha256": known.sha256,
            **{key: known.metadata[key] for key in ("command", "steps", "training_seconds")},
        }
    if maps_file is not None and name in ("locate", "segment"):
        entry.update(places_for(name, places_of_maps(Path(maps_file))))
    return store(name, state, entry, out)
