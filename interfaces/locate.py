"""A first look at a scan in any position: where the brain is and where its structures lie."""

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, traits

from hyperprep.interfaces.base import (
    ModelInterface,
    _MetricsOutputSpec,
    _ModelInputSpec,
    save_image,
    write_json,
)


class _LocateInputSpec(_ModelInputSpec):
    in_file = File(exists=True, mandatory=True, desc="scan, with or without skull, any position")
    segment_weights_sha256 = traits.Str(
        desc="digest that the weights of the network 'segment' must have, which polishes the result"
    )


class _LocateOutputSpec(_MetricsOutputSpec):
    out_mask = File(exists=True, desc="rough brain mask on the scan's grid, uint8")
    out_centroids = File(exists=True, desc="JSON: FreeSurfer number to centroid in the scan, RAS mm")
    out_template_centroids = File(exists=True, desc="JSON: the same structures in the networks' frame")


class Locate(ModelInterface):
    """Find the brain and the centroids of its structures (network ``locate``, 4 mm).

    Examples
    --------
    >>> from hyperprep.interfaces.locate import Locate
    >>> locate = Locate(in_file="sub-01_T1w.nii.gz", num_threads=2)  # doctest: +SKIP
    >>> locate.run().outputs.out_centroids  # doctest: +SKIP
    '/current/folder/centroids.json'
    """

    input_spec = _LocateInputSpec
    output_spec = _LocateOutputSpec
    _weights_name = "locate"
    _further_weights = ("segment",)

    def _compute(self, folder: Path) -> dict[str, Any]:
        from hyperprep.models.predict.locate import locate
        from hyperprep.models.spatial.images import read_scan

        digest, polisher = self._weights_digest(), self._weights_digest("segment")
        scan = read_scan(self.inputs.in_file)
        found = locate(scan, **self._model_options())
        self._results["out_mask"] = save_image(found.mask, folder / "rough_mask.nii.gz", like=scan)
        self._results["out_centroids"] = write_json(found.centroids, folder / "centroids.json")
        self._results["out_template_centroids"] = write_json(
            found.template_centroids, folder / "template_centroids.json"
        )
        return {
            "weights_sha256": digest,
            "segment_weights_sha256": polisher,
            "structures_found": len(found.centroids),
        }
