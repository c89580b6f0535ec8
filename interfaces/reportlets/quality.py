"""The figures by which a session is judged: names, units, limits, and warnings in words.

One table serves the participant's summary and the group page. The keys are those of the metrics JSON and of
the columns of the group TSV; figures without an entry here are still shown, under their own key.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Measure:
    """One figure of quality.

    Attributes
    ----------
    key
        Key in the metrics JSON.
    label
        What readers see.
    unit
        Unit, or empty.
    decimals
        Digits after the point.
    better
        Which side is good; ``"neither"`` where both extremes are suspicious.
    low, high
        A value below ``low`` or above ``high`` gives a warning.
    advice
        What a value beyond the limits means and what to do.
    about
        What the figure is.
    """

    key: str
    label: str
    unit: str = ""
    decimals: int = 2
    better: Literal["high", "low", "neither"] = "neither"
    low: float | None = None
    high: float | None = None
    advice: str = ""
    about: str = ""

    def text(self, value: Any) -> str:
        """Write a value with its unit.

        Examples
        --------
        >>> Measure("folding_percent", "Folding", "%", 3).text(0.01234)
        '0.012 %'
        >>> Measure("seed", "Seed").text(None)
        'n/a'
        """
        number = as_number(value)
        if number is None:
            return "n/a" if value is None or isinstance(value, float) else str(value)
        return f"{number:.{self.decimals}f} {self.unit}".rstrip()

    def expected(self) -> str:
        """Put the limits into words.

        Examples
        --------
        >>> Measure("x", "X", "%", low=1, high=5).expected(), Measure("x", "X", high=0.1).expected()
        ('1 to 5 %', 'at most 0.1')
        """
        unit = f" {self.unit}" if self.unit else ""
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}{unit}"
        if self.low is not None:
            return f"at least {self.low:g}{unit}"
        return f"at most {self.high:g}{unit}" if self.high is not None else ""

    def beyond(self, value: Any) -> bool:
        """Whether a value is outside the limits.

        Examples
        --------
        >>> measure = Measure("x", "X", low=0.5)
        >>> measure.beyond(0.4), measure.beyond(0.6), measure.beyond(None)
        (True, False, False)
        """
        number = as_number(value)
        if number is None:
            return False
        return (self.low is not None and number < self.low) or (self.high is not None and number > self.high)


MEASURES = (
    Measure(
        "brain_volume_ml", "Brain volume", "mL", 0, low=700, high=2100,
        advice="The brain mask may be wrong: look at its outline in the segmentation figure.",
        about="Volume inside the brain mask",
    ),
    Measure(
        "prealign_overlap", "Overlap after affine", "", 3, "high", low=0.85,
        advice="The affine alignment may have failed: look at the alignment figure, layer “after affine”.",
        about="Share of one foreground (the brain mask, where known) that lies on the other one after the "
        "affine alignment, the larger of both ways",
    ),
    Measure(
        "prealign_cost", "Cost after affine", "", 3, "low",
        about="What the affine alignment minimised (intensities)",
    ),
    Measure(
        "dice_affine", "Dice after affine", "", 3, "high",
        about="Mean Dice of all structures of scan and template after affine alignment",
    ),
    Measure(
        "dice_mean", "Dice after deformation", "", 3, "high", low=0.6,
        advice="Structures do not fit after the deformation: look at the alignment and the segmentation.",
        about="Mean Dice of all structures of scan and template after deformable registration",
    ),
    Measure("similarity", "Image similarity", "", 3, "high", about="Local correlation after registration"),
    Measure(
        "lambda", "Regularisation λ*", "", 2, low=0.02, high=0.98,
        advice="λ lies at the end of its range: look at the λ curve before trusting the deformation.",
        about="Weight of smoothness against fit, chosen for this pair or given",
    ),
    Measure(
        "sd_log_jacobian", "SD of log |J|", "", 3, "low", high=0.6,
        advice="The deformation is unusually rough: look at the grid and the Jacobian map.",
        about="Standard deviation of the log Jacobian determinant inside the brain",
    ),
    Measure(
        "folding_percent", "Folded voxels", "%", 4, "low", high=0.1,
        advice="The deformation folds: a larger λ gives a smoother one; do not use the Jacobian map there.",
        about="Voxels of the brain with |J| ≤ 0",
    ),
    Measure("seconds", "Computing time", "s", 1, "low", about="Wall time of this session's steps"),
)  # fmt: skip
"""Known figures in the order in which they are shown."""

BY_KEY = {measure.key: measure for measure in MEASURES}


def as_number(value: Any) -> float | None:
    """Return a finite float, or None for anything else.

    Examples
    --------
    >>> as_number("0.5"), as_number("n/a"), as_number(float("nan")), as_number(True)
    (0.5, None, None, None)
    """
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def measure_of(key: str) -> Measure:
    """Look up the entry of a key; unknown keys get one made from their name and its unit.

    Examples
    --------
    >>> measure_of("dice_mean").label, measure_of("hausdorff95_mm").label, measure_of("hausdorff95_mm").unit
    ('Dice after deformation', 'Hausdorff95', 'mm')
    """
    if key in BY_KEY:
        return BY_KEY[key]
    name, unit = key, ""
    for ending, symbol in (
        ("_mm3", "mm³"),
        ("_mm", "mm"),
        ("_percent", "%"),
        ("_ml", "mL"),
        ("_seconds", "s"),
        ("_gb", "GB"),
    ):
        if key.endswith(ending):
            name, unit = key.removesuffix(ending), symbol
            break
    label = name.replace("_", " ").strip()
    return Measure(key, label[:1].upper() + label[1:], unit, 3)


def warnings_of(metrics: Mapping[str, Any], others: Iterable[str] = ()) -> list[str]:
    """Say what a reader has to know first, worst first.

    Parameters
    ----------
    metrics
        Key figures; besides those of :data:`MEASURES` ``prealign_success`` (bool) and ``prealign_reason``
        (text) count.
    others
        Further warnings in words; kept, after the alignment's and before the limits'.

    Examples
    --------
    >>> warnings_of({"prealign_success": False, "prealign_reason": "masks overlap by 0.3", "dice_mean": 0.9})
    ['Alignment to the template failed: masks overlap by 0.3. Nothing in template space can be trusted.']
    >>> warnings_of({"folding_percent": 0.5})[0][:47]
    'Folded voxels is 0.5000 %, expected at most 0.1'
    """
    found = []
    if metrics.get("prealign_success") is False:
        reason = str(metrics.get("prealign_reason") or "no reason was given").rstrip(". ")
        found.append(f"Alignment to the template failed: {reason}. Nothing in template space can be trusted.")
    found += [text for text in others if text]
    for measure in MEASURES:
        value = metrics.get(measure.key)
        if measure.beyond(value):
            found.append(
                f"{measure.label} is {measure.text(value)}, expected {measure.expected()}. {measure.advice}"
            )
    return list(dict.fromkeys(found))
