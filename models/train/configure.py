"""Read a training configuration: which network, which images, how long."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hyperprep.exceptions import UsageError
from hyperprep.models.synth.apply import Lattice
from hyperprep.models.synth.draw import SynthSpec
from hyperprep.models.synth.maps import LabelMaps
from hyperprep.models.train.loop import Task
from hyperprep.models.train.schedule import Schedule

NETWORKS = ("locate", "segment", "hypermorph", "neuralizer", "semantic", "topology")
_TOP = {"network", "seed", "steps", "max_minutes", "learning_rate", "lattice", "model", "images"}


def read_config(path: str | Path) -> dict[str, Any]:
    """Read and check a TOML training configuration; a bare name means one of the configurations that ship.

    Raises
    ------
    UsageError
        When the file is not there or holds a key or network that is not known.

    Examples
    --------
    >>> read_config("segment")["network"]
    'segment'
    """
    path = Path(path)
    if not path.exists():
        shipped = Path(__file__).parent / "configs" / f"{path}.toml"
        if not shipped.exists():
            names = ", ".join(sorted(p.stem for p in shipped.parent.glob("*.toml")))
            raise UsageError(f"No training configuration {path}. Give a TOML file or one of: {names}.")
        path = shipped
    config = tomllib.loads(path.read_text())
    unknown = set(config) - _TOP
    if unknown or config.get("network") not in NETWORKS:
        raise UsageError(
            f"{path}: unknown keys {sorted(unknown)} or network {config.get('network')!r}; "
            f"known networks: {NETWORKS}."
        )
    return config


def override(config: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Change entries of a configuration.

    Parameters
    ----------
    config
        From :func:`read_config`.
    settings
        ``KEY=VALUE`` each; tables are named as in ``model.dims=2``. A value is TOML, or else a word.

    Raises
    ------
    UsageError
        When a setting has no ``=``, or names a key or table that no configuration has.

    Examples
    --------
    >>> override({"steps": 9, "model": {}}, ["model.features=image", "steps=20"])
    {'steps': 20, 'model': {'features': 'image'}}
    """
    made = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    for setting in settings:
        name, equals, text = setting.partition("=")
        table, _, key = name.strip().rpartition(".")
        if not equals or (table or key) not in _TOP or isinstance(made.get(key), dict):
            raise UsageError(f"--set {setting}: write KEY=VALUE, with a key of {sorted(_TOP)} or of a table.")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        (made.setdefault(table, {}) if table else made)[key] = value
    return made


def settings_between(before: dict[str, Any], after: dict[str, Any]) -> list[str] | None:
    """Give the settings that :func:`override` turns one configuration into another by; None where none do.

    Examples
    --------
    >>> settings_between({"steps": 9, "model": {"start": "none"}}, {"steps": 9, "model": {"start": "none"}})
    []
    >>> settings_between({"steps": 9, "model": {}}, {"steps": 20, "model": {"features": "image"}})
    ['steps=20', 'model.features=image']
    """

    def flat(config: dict[str, Any]) -> dict[str, Any]:
        out = {}
        for key, value in config.items():
            inner = value if isinstance(value, dict) else {"": value}
            out.update({f"{key}.{name}".rstrip("."): one for name, one in inner.items()})
        return out

    one, other = flat(before), flat(after)
    if set(one) - set(other):
        return None
    return [
        f"{key}={value}".replace(" ", "") if not isinstance(value, bool) else f"{key}={value}".lower()
        for key, value in other.items()
        if key not in one or one[key] != value
    ]


def _with_tuples(table: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def lattice_of(config: dict[str, Any]) -> Lattice:
    """Make the network's lattice.

    Examples
    --------
    >>> lattice_of(read_config("segment")).spacing
    2.0
    """
    given = config["lattice"]
    return Lattice(tuple(given["shape"]), float(given["spacing_mm"]), tuple(given["origin_mm"]))


def spec_of(config: dict[str, Any]) -> SynthSpec:
    """Make the ranges of the synthetic images.

    Raises
    ------
    UsageError
        When a key is no field of :class:`SynthSpec`.

    Examples
    --------
    >>> spec_of({"images": {"noise": 0.01}}).noise
    0.01
    """
    given = _with_tuples(config.get("images", {}))
    unknown = set(given) - {f.name for f in fields(SynthSpec)}
    if unknown:
        raise UsageError(
            f"[images] has unknown keys {sorted(unknown)}; "
            f"known: {sorted(f.name for f in fields(SynthSpec))}."
        )
    return SynthSpec(**given)


def schedule_of(config: dict[str, Any], *, max_minutes: float | None = None) -> Schedule:
    """Make the schedule; ``max_minutes`` overrides the configuration's.

    Examples
    --------
    >>> schedule_of({"steps": 10}, max_minutes=2).max_seconds
    120.0
    """
    minutes = config.get("max_minutes") if max_minutes is None else max_minutes
    limit: dict[str, Any] = {} if minutes is None else {"max_seconds": 60.0 * float(minutes)}
    return Schedule(
        steps=int(config.get("steps", 60_000)),
        learning_rate=float(config.get("learning_rate", 1e-3)),
        seed=int(config.get("seed", 0)),
        **limit,
    )


def task_of(config: dict[str, Any], maps: LabelMaps, device: str) -> Task:
    """Make the task of the configured network.

    Parameters
    ----------
    config
        A configuration from :func:`read_config`.
    maps
        Prepared label maps, on ``device``.
    device
        Name of the torch device that trains.

    Raises
    ------
    UsageError
        When ``[model]`` has a key that the network's task does not know, or values that do not go together.
    """
    model = _with_tuples(config.get("model", {}))
    kind: Any
    if config["network"] == "hypermorph":
        from hyperprep.models.train.registration import RegistrationTask as kind
    elif config["network"] == "neuralizer":
        from hyperprep.models.train.neuralizer import NeuralizerTask as kind
    elif config["network"] == "topology":
        from hyperprep.models.train.topology import TopologyTask as kind
    else:
        from hyperprep.models.train.segmentation import SegmentationTask as kind
    known = {f.name for f in fields(kind) if f.init} - {"maps", "lattice", "spec", "name", "device"}
    if set(model) - known:
        raise UsageError(f"[model] has unknown keys {sorted(set(model) - known)}; known: {sorted(known)}.")
    task: Task = kind(
        maps, lattice_of(config), spec_of(config), name=config["network"], device=device, **model
    )
    return task
