"""Scans checked, put in one form and freed of their bias field."""

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, traits

from hyperprep.interfaces.base import (
    TimedInterface,
    _MetricsOutputSpec,
    _ThreadedInputSpec,
    defined,
    save_image,
)


class _ConformScanInputSpec(_ThreadedInputSpec):
    in_file = File(exists=True, mandatory=True, desc="scan with one volume, any grid, type and format")


class _ConformScanOutputSpec(_MetricsOutputSpec):
    out_file = File(exists=True, desc="the scan on its own grid: 3-D, float32, finite")


class ConformScan(TimedInterface):
    """Check a scan and put it in the form that all later steps take; its grid stays its own.

    Raises
    ------
    NoInputError, ScanError
        If the file cannot be used as a scan.

    Examples
    --------
    >>> from hyperprep.interfaces.conform import ConformScan
    >>> conform = ConformScan(in_file="sub-01_T1w.nii.gz")  # doctest: +SKIP
    >>> conform.run().outputs.out_file  # doctest: +SKIP
    '/current/folder/sub-01_T1w_conformed.nii.gz'
    """

    input_spec = _ConformScanInputSpec
    output_spec = _ConformScanOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        from hyperprep.models.predict.conform import conform
        from hyperprep.models.spatial.grids import Grid
        from hyperprep.models.spatial.images import read_scan

        scan = conform(read_scan(self.inputs.in_file))
        self._results["out_file"] = save_image(scan, _named(folder, self.inputs.in_file, "conformed"))
        grid = Grid.of(scan)
        return {"shape": grid.shape, "spacing_mm": [round(float(size), 5) for size in grid.spacing]}


class _N4InputSpec(_ThreadedInputSpec):
    in_file = File(exists=True, mandatory=True, desc="scan")
    in_mask = File(exists=True, desc="where the field is estimated; by default the head by Otsu's threshold")
    shrink = traits.Range(
        low=1, value=4, usedefault=True, desc="voxel size in mm of the coarse copy that gives the field"
    )


class _N4OutputSpec(_MetricsOutputSpec):
    out_file = File(exists=True, desc="corrected scan, float32, on its own grid")


class N4BiasCorrection(TimedInterface):
    """Divide a scan by its slowly varying intensity field (N4, SimpleITK's).

    Examples
    --------
    >>> from hyperprep.interfaces.conform import N4BiasCorrection
    >>> n4 = N4BiasCorrection(in_file="sub-01_T1w.nii.gz", num_threads=2)  # doctest: +SKIP
    >>> n4.run().outputs.out_file  # doctest: +SKIP
    '/current/folder/sub-01_T1w_n4.nii.gz'
    """

    input_spec = _N4InputSpec
    output_spec = _N4OutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        import numpy as np

        from hyperprep.models.predict.conform import correct_bias, head_mask
        from hyperprep.models.spatial.images import read_mask, read_scan

        scan = read_scan(self.inputs.in_file)
        mask_file = defined(self.inputs.in_mask)
        mask = read_mask(mask_file, like=scan) if mask_file else head_mask(scan)
        made = correct_bias(scan, mask, shrink=self.inputs.shrink, num_threads=self.inputs.num_threads)
        self._results["out_file"] = save_image(made, _named(folder, self.inputs.in_file, "n4"))
        inside = (np.asanyarray(mask.dataobj) > 0) & (scan.get_fdata() > 0) & (made.get_fdata() > 0)
        low, high = np.percentile(scan.get_fdata()[inside] / made.get_fdata()[inside], (1, 99))
        return {"field_ratio": round(float(high / low), 4)}


def _named(folder: Path, source: str, addition: str) -> Path:
    """File in a folder, named after a source."""
    return folder / f"{Path(source).name.split('.', 1)[0]}_{addition}.nii.gz"
