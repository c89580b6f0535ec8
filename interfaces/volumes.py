"""Volumes of segmented structures."""

from pathlib import Path
from typing import Any, cast

from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec, traits

from hyperprep.interfaces.base import defined, read_table, write_json, write_table


class _MeasureVolumesInputSpec(BaseInterfaceInputSpec):
    in_dseg = File(
        exists=True, mandatory=True, xor=["in_volumes"], desc="segmentation with FreeSurfer numbers"
    )
    in_volumes = File(
        exists=True, mandatory=True, xor=["in_dseg"], desc="TSV of volumes: index, name, volume_mm3"
    )
    in_mask = File(exists=True, desc="brain mask; adds a row for its volume")


class _MeasureVolumesOutputSpec(TraitedSpec):
    out_volumes = File(exists=True, desc="TSV: index, name, volume_mm3; with super-regions and brain mask")
    out_metrics = File(exists=True, desc="JSON: volume in mm^3 by name, and what is not plausible")
    remarks = traits.List(traits.Str, desc="what is not plausible, in words; empty if nothing")


class MeasureVolumes(SimpleInterface):
    """Measure structures by their voxels, or take their volumes from a table, and say what is not plausible.

    Examples
    --------
    >>> from hyperprep.interfaces.volumes import MeasureVolumes
    >>> volumes = MeasureVolumes(in_dseg="dseg.nii.gz", in_mask="mask.nii.gz")  # doctest: +SKIP
    >>> volumes.run().outputs.remarks  # doctest: +SKIP
    []
    """

    input_spec = _MeasureVolumesInputSpec
    output_spec = _MeasureVolumesOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from hyperprep.models.predict.plausible import implausible_volumes
        from hyperprep.models.predict.volumes import (
            VolumeRow,
            complete_volumes,
            measure_volumes,
        )
        from hyperprep.models.spatial.images import read_dseg, read_mask

        mask_file, table = defined(self.inputs.in_mask), defined(self.inputs.in_volumes)
        mask = read_mask(mask_file) if mask_file else None
        if table:
            found = cast("list[VolumeRow]", read_table(table).to_dict("records"))
            rows = complete_volumes(found, mask)
        else:
            rows = measure_volumes(read_dseg(self.inputs.in_dseg), mask)
        remarks = implausible_volumes(rows)
        folder = Path(runtime.cwd)
        figures = {"volumes_mm3": {row["name"]: row["volume_mm3"] for row in rows}, "remarks": remarks}
        self._results["out_volumes"] = write_table(rows, folder / "volumes.tsv")
        self._results["out_metrics"] = write_json(figures, folder / "metrics.json")
        self._results["remarks"] = remarks
        return runtime
