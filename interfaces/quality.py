"""All figures by which the processing of one scan is judged, in one flat table."""

import json
import math
from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec, traits

from hyperprep.interfaces.base import defined, write_json

_STEPS = ("conform", "bias", "locate", "prealign", "segment", "register", "topology")
#: Figures of the registration that carry no prefix; what else it tells is called ``register_<key>``.
_PLAIN = ("lambda", "similarity", "sd_log_jacobian", "folding_percent")


#: Key of a figure and its name in sidecars.
_SEGMENTATION_FIELDS = {
    "segment_weights_sha256": "WeightsSHA256",
    "segment_regions_weights_sha256": "RegionsWeightsSHA256",
    "volumes_plausible": "VolumesPlausible",
}
_REGISTRATION_FIELDS = {
    "register_weights_sha256": "WeightsSHA256",
    "lambda": "RegularizationWeight",
    "dice_mean": "MeanDice",
    "folding_percent": "FoldingPercent",
    "sd_log_jacobian": "SDLogJacobian",
    "prealign_success": "PrealignmentSucceeded",
}
_TOPOLOGY_FIELDS = {
    "topology_weights_sha256": "WeightsSHA256",
    "topology_calibrated": "Calibrated",
    "topology_controls": "NumberOfControls",
    "topology_threshold": "ZThreshold",
}


class _CollectQualityInputSpec(BaseInterfaceInputSpec):
    conform = File(exists=True, desc="metrics of ConformScan")
    bias = File(exists=True, desc="metrics of N4BiasCorrection")
    locate = File(exists=True, desc="metrics of Locate")
    prealign = File(exists=True, desc="metrics of AffinePrealign")
    segment = File(exists=True, desc="metrics of ConditionalSegmentation")
    register = File(exists=True, desc="metrics of HyperMorph")
    topology = File(exists=True, desc="metrics of TopologyChange")
    volumes = File(exists=True, desc="metrics of MeasureVolumes")
    template_dseg = File(exists=True, desc="structures of the template")
    dseg_affine = File(exists=True, desc="the scan's structures on the template's grid, aligned affinely")
    dseg_std = File(exists=True, desc="the scan's structures on the template's grid, registered")


class _CollectQualityOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="flat JSON of all figures")
    segmentation_meta = traits.Dict(desc="what the sidecars of the segmentations tell")
    registration_meta = traits.Dict(desc="what the sidecars of everything in standard space tell")
    topology_meta = traits.Dict(desc="what the sidecars of the topology-change maps tell")


class CollectQuality(SimpleInterface):
    """Gather the figures of all steps of one scan and compare its structures with the template's.

    Keys of a step begin with the step's name; ``dice_mean`` and ``dice_affine`` are means over the
    structures of the template, ``seconds`` is the sum over the steps.

    Examples
    --------
    >>> from hyperprep.interfaces.quality import CollectQuality
    >>> quality = CollectQuality(prealign="prealign.json", register="register.json")  # doctest: +SKIP
    >>> quality.run().outputs.out_file  # doctest: +SKIP
    '/current/folder/quality.json'
    """

    input_spec = _CollectQualityInputSpec
    output_spec = _CollectQualityOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        figures: dict[str, Any] = {}
        for step in _STEPS:
            figures.update(flatten_step(step, _read(defined(getattr(self.inputs, step)))))
        figures["seconds"] = round(sum(figures.get(f"{step}_seconds", 0.0) for step in _STEPS), 3)
        volumes = _read(defined(self.inputs.volumes))
        if volumes:
            brain = volumes["volumes_mm3"].get("brain-mask")
            figures["brain_volume_ml"] = None if brain is None else round(brain / 1000, 3)
            figures["volumes_plausible"] = not volumes["remarks"]
            figures["volumes_remarks"] = volumes["remarks"]
        figures.update(self._overlaps())
        self._results["out_file"] = write_json(figures, Path(runtime.cwd) / "quality.json")
        self._results["segmentation_meta"] = sidecar_fields(figures, _SEGMENTATION_FIELDS)
        self._results["topology_meta"] = sidecar_fields(figures, _TOPOLOGY_FIELDS)
        self._results["registration_meta"] = sidecar_fields(figures, _REGISTRATION_FIELDS)
        return runtime

    def _overlaps(self) -> dict[str, float]:
        """Dice with the template's structures, after the affine alignment and after the registration."""
        import nibabel as nb
        import numpy as np

        from hyperprep.models.predict.volumes import mean_overlap, region_name
        from hyperprep.models.spatial.labels import to_leaves
        from hyperprep.models.spatial.measures import dice

        template = defined(self.inputs.template_dseg)
        if not template:
            return {}
        fixed = to_leaves(np.asanyarray(nb.load(template).dataobj))
        numbers = [int(number) for number in np.unique(fixed) if number]
        found: dict[str, float] = {}
        for key, path in (("dice_affine", self.inputs.dseg_affine), ("dice_mean", self.inputs.dseg_std)):
            if not defined(path):
                continue
            overlaps = dice(fixed, to_leaves(np.asanyarray(nb.load(path).dataobj)), numbers)
            found[key] = mean_overlap(overlaps)
            if key == "dice_mean":
                found.update({f"dice_{region_name(number)}": value for number, value in overlaps.items()})
        return found


def flatten_step(step: str, figures: dict[str, Any]) -> dict[str, Any]:
    """Figures of one step under keys that are unique over all steps; nested tables are flattened.

    Parameters
    ----------
    step
        Name of the step.
    figures
        What the step wrote.

    Returns
    -------
    dict
        Flat.

    Examples
    --------
    >>> flatten_step("register", {"lambda": 0.3, "seconds": 2.0, "search": {"steps": 9}})
    {'lambda': 0.3, 'register_seconds': 2.0, 'register_search_steps': 9}
    """
    flat: dict[str, Any] = {}
    for key, value in figures.items():
        if isinstance(value, dict):
            flat.update({f"{step}_{key}_{inner}": item for inner, item in value.items()})
        elif step == "register" and key in _PLAIN:
            flat[key] = value
        else:
            flat[f"{step}_{key}"] = value
    return flat


def sidecar_fields(figures: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Select figures and name them as sidecars do; those that are missing or not finite are left out.

    Parameters
    ----------
    figures
        Flat figures.
    names
        Key of a figure to its name in sidecars.

    Returns
    -------
    dict
        Plain values.

    Examples
    --------
    >>> sidecar_fields({"lambda": 0.3, "dice_mean": float("nan")}, {"lambda": "Lambda", "dice_mean": "Dice"})
    {'Lambda': 0.3}
    """
    found = {name: figures.get(key) for key, name in names.items()}
    return {
        name: value
        for name, value in found.items()
        if value is not None and not (isinstance(value, float) and math.isnan(value))
    }


def _read(path: str | None) -> dict[str, Any]:
    return dict(json.loads(Path(path).read_text())) if path else {}
