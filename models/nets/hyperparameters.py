"""The hyperparameters that a network takes as inputs: their names, ranges, defaults and scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hyperprep.exceptions import UsageError, WeightsError

NAMES = ("lambda", "gamma", "w")
"""What can be learned: weight of regularity, weight of label overlap, window of the local correlation."""


@dataclass(frozen=True)
class Hyperparameter:
    """One input of a hypernetwork.

    Attributes
    ----------
    name
        One of :data:`NAMES`.
    values
        Lowest and highest value (the window in voxels of the network's grid), or every value that was trained
        when the hyperparameter is discrete.
    discrete
        Whether training drew from ``values`` alone; between them the network interpolates.
    default
        The value that is used when none is given.
    """

    name: str
    values: tuple[float, ...] = (0.0, 1.0)
    discrete: bool = False
    default: float = 0.3

    def scaled(self, value: float) -> float:
        """Bring a value to [0, 1], as the network sees it (HyperMorph section 3.3).

        Raises
        ------
        UsageError
            When the value is outside the range.

        Examples
        --------
        >>> Hyperparameter("w", (3, 5, 7, 9), discrete=True, default=5).scaled(6)
        0.5
        """
        low, high = self.values[0], self.values[-1]
        if not low <= value <= high:
            raise UsageError(f"{self.name} must lie in [{low:g}, {high:g}], not {value:g}.")
        return (value - low) / (high - low)

    def unscaled(self, share: float) -> float:
        """Bring what the network sees back to the hyperparameter's unit; discrete ones to a trained value.

        Examples
        --------
        >>> Hyperparameter("w", (3, 5, 7, 9), discrete=True, default=5).unscaled(0.34)
        5
        """
        value = self.values[0] + share * (self.values[-1] - self.values[0])
        return min(self.values, key=lambda one: abs(one - value)) if self.discrete else value

    def draw(self, rng: np.random.Generator, *, end_share: float = 0.2) -> float:
        """Draw a scaled value for one training step (HyperMorph section 3.3).

        Discrete ones are uniform over their values; continuous ones are uniform over [0, 1], but a share of
        the draws comes from the ends 0 and 1.

        Examples
        --------
        >>> Hyperparameter("lambda").draw(np.random.default_rng(0), end_share=1.0) in (0.0, 1.0)
        True
        """
        if self.discrete:
            return self.scaled(self.values[int(rng.integers(len(self.values)))])
        return float(rng.integers(2)) if rng.random() < end_share else float(rng.random())

    def described(self) -> dict[str, Any]:
        """Give the entry of a manifest."""
        return {
            "name": self.name,
            "values": list(self.values),
            "discrete": self.discrete,
            "default": self.default,
        }


def hyperparameters_of(
    names: Sequence[str],
    *,
    windows: Sequence[int] = (3, 5, 7, 9),
    defaults: Mapping[str, float] | None = None,
) -> tuple[Hyperparameter, ...]:
    """Make the hyperparameters that a training configuration names.

    Parameters
    ----------
    names
        ``lambda`` first, then any of ``gamma`` and ``w``.
    windows
        Windows of the local correlation that ``w`` is drawn from: voxels, odd, rising.
    defaults
        Values to use when a user gives none; 0.3 for lambda and gamma, the second window for ``w`` otherwise.

    Raises
    ------
    UsageError
        When a name is not known or given twice, lambda is not first, or windows are not odd and rising.

    Examples
    --------
    >>> [one.default for one in hyperparameters_of(["lambda", "w"])]
    [0.3, 5]
    """
    if not names or names[0] != "lambda" or len(set(names)) != len(names) or set(names) - set(NAMES):
        raise UsageError(
            f"hyperparameters = {list(names)}: name lambda first, then any of gamma and w, each once."
        )
    if len(windows) < 2 or any(w % 2 == 0 for w in windows) or list(windows) != sorted(set(windows)):
        raise UsageError(f"windows = {list(windows)}: give at least two odd numbers of voxels, rising.")
    unknown = set(defaults or {}) - set(names)
    if unknown:
        raise UsageError(f"defaults are given for {sorted(unknown)}, which are no hyperparameters here.")
    out = []
    for name in names:
        one = (
            Hyperparameter(name, tuple(windows), discrete=True, default=windows[1])
            if name == "w"
            else Hyperparameter(name)
        )
        if defaults and name in defaults:
            one = Hyperparameter(name, one.values, one.discrete, defaults[name])
            one.scaled(one.default)
        out.append(one)
    return tuple(out)


def read_hyperparameters(metadata: Mapping[str, Any]) -> tuple[Hyperparameter, ...]:
    """Read what weights say of their hyperparameters; weights that say nothing have lambda alone.

    Parameters
    ----------
    metadata
        Entry of the manifest.

    Raises
    ------
    WeightsError
        When lambda is not the first of them, or their number is not the network's.

    Examples
    --------
    >>> [one.name for one in read_hyperparameters({"network": {"n_hyper": 1}})]
    ['lambda']
    """
    listed: list[dict[str, Any]] = metadata.get("hyperparameters") or [{"name": "lambda"}]
    found = tuple(Hyperparameter(**{**one, "values": tuple(one.get("values", (0.0, 1.0)))}) for one in listed)
    count = metadata["network"].get("n_hyper", 1)
    if found[0].name != "lambda" or len(found) != count:
        raise WeightsError(
            f"The weights take {count} hyperparameters, of which their manifest entry names "
            f"{[one.name for one in found]}; lambda must be the first. Export them again."
        )
    return found


def fixed_values(known: Sequence[Hyperparameter], given: Mapping[str, float] | None) -> dict[str, float]:
    """Give the value of every hyperparameter but lambda: the one given, else the weights' own default.

    Parameters
    ----------
    known
        Hyperparameters of the weights.
    given
        Values by name, in the hyperparameters' units.

    Raises
    ------
    UsageError
        When a value is out of range, or given for what is no hyperparameter of the weights.

    Examples
    --------
    >>> known = hyperparameters_of(["lambda", "gamma", "w"])
    >>> fixed_values(known, {"w": 7})
    {'gamma': 0.3, 'w': 7}
    """
    rest = {one.name: one for one in known[1:]}
    unknown = set(given or {}) - set(rest)
    if unknown:
        raise UsageError(
            f"These weights have no hyperparameter {', '.join(sorted(unknown))} beside lambda; "
            f"they have: {', '.join(rest) or 'none'}. Leave it out or use weights trained with it."
        )
    out = {name: (given or {}).get(name, one.default) for name, one in rest.items()}
    for name, value in out.items():
        rest[name].scaled(value)
    return out
