"""Topology-change maps: where a registration cannot be trusted, and what changed between two sessions."""

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, traits

from hyperprep.interfaces.base import (
    ModelInterface,
    _MetricsOutputSpec,
    _ModelInputSpec,
    defined,
    read_affine,
    read_like,
    save_image,
    write_table,
)

REGION_COLUMNS = (
    "index", "volume_mm3", "x_mm", "y_mm", "z_mm", "peak", "peak_x_mm", "peak_y_mm", "peak_z_mm", "mean",
    "structures",
)  # fmt: skip
"""Columns of a table of regions, which it has without any region too."""


class _TopologyPairInputSpec(_ModelInputSpec):
    min_volume_mm3 = traits.Range(
        low=0.0, value=64.0, usedefault=True, desc="smaller connected regions are left out, mm^3"
    )
    control_statistics = File(
        exists=True,
        desc="NPZ of the group level: scores of controls; by default those beside the weights, if any",
    )
    calibrate = traits.Bool(
        True, usedefault=True, desc="compare with controls; off, those beside the weights are left aside too"
    )


class _TopologyChangeInputSpec(_TopologyPairInputSpec):
    template_image = File(exists=True, mandatory=True, desc="skull-stripped template")
    scan = File(exists=True, mandatory=True, desc="scan that is compared with it")
    template2scan_xfm = File(
        exists=True,
        mandatory=True,
        desc="ITK transform that brings the scan onto the template: the affine alignment alone",
    )
    in_xfm = File(
        exists=True, desc="ITK composite that brings the scan onto the template; the network starts from it"
    )
    in_inverse_xfm = File(exists=True, desc="ITK composite of the opposite direction")
    template_mask = File(exists=True, desc="brain mask of the template")
    scan_mask = File(exists=True, desc="brain mask of the scan")
    scan_dseg = File(exists=True, desc="structures of the scan (FreeSurfer numbers): names for the regions")
    threshold = traits.Range(
        low=0.0, desc="z from which on a voxel belongs to a region; by default where a control has one region"
    )


class _TopologyChangeOutputSpec(_MetricsOutputSpec):
    out_score = File(exists=True, desc="L_sym on the scan's grid, nats: how badly the template explains it")
    out_template_score = File(
        exists=True, desc="L_sym on the network's grid in the template's space, for statistics of controls"
    )
    out_excess = File(
        exists=True, desc="Q: the averaged score less the controls' mean, nats; undefined without"
    )
    out_z = File(exists=True, desc="calibrated z-score on the scan's grid; undefined without controls")
    out_mask = File(exists=True, desc="regions above the threshold, 0/1; undefined without controls")
    out_regions = File(
        exists=True, desc="TSV of the regions: volume, centroid, peak, structures; undefined without controls"
    )
    out_weight = File(
        exists=True,
        desc="weight of each place of the template in a registration's similarity, 0 where no match exists; "
        "undefined without controls",
    )


class TopologyChange(ModelInterface):
    """Map where a scan and the template have no match (network ``topology``, 2 mm).

    Examples
    --------
    >>> from hyperprep.interfaces.topology import TopologyChange
    >>> change = TopologyChange(
    ...     template_image="tpl.nii.gz", scan="T1w.nii.gz", template2scan_xfm="affine.txt"
    ... )  # doctest: +SKIP
    >>> change.run().outputs.out_regions  # doctest: +SKIP
    '/current/folder/regions.tsv'
    """

    input_spec = _TopologyChangeInputSpec
    output_spec = _TopologyChangeOutputSpec
    _weights_name = "topology"

    def _compute(self, folder: Path) -> dict[str, Any]:
        from hyperprep.models.predict.topology import topology_change
        from hyperprep.models.spatial.grids import Grid
        from hyperprep.models.spatial.images import read_mask, read_scan

        digest = self._weights_digest()
        inputs = self.inputs
        template, scan = read_scan(inputs.template_image), read_scan(inputs.scan)
        scan_mask = read_like(read_mask, inputs.scan_mask, scan)
        made = topology_change(
            template,
            scan,
            fixed2moving=read_affine(inputs.template2scan_xfm),
            fixed_mask=read_like(read_mask, inputs.template_mask, template),
            moving_mask=scan_mask,
            transforms=read_both(inputs.in_xfm, inputs.in_inverse_xfm),
            **self._model_options(),
        )
        self._results["out_score"] = save_image(
            made.on_moving(made.moving_score, Grid.of(scan)), folder / "score.nii.gz", like=scan
        )
        self._results["out_template_score"] = save_image(
            made.image(made.fixed_score), folder / "template_score.nii.gz", like=template
        )
        metrics = {**made.metrics, "weights_sha256": digest}
        controls = read_controls(self, "template")
        if controls is None:
            return {**metrics, "calibrated": False}
        return {**metrics, **self._compare(made, controls, scan, template, scan_mask, folder)}

    def _compare(
        self, made: Any, controls: Any, scan: Any, template: Any, mask: Any, folder: Path
    ) -> dict[str, Any]:
        """Write what only control statistics make possible."""
        from hyperprep.models.predict.outliers import change_regions, match_weight, outliers
        from hyperprep.models.spatial.grids import Grid
        from hyperprep.models.spatial.images import read_dseg

        found = outliers(made, controls)
        grid = Grid.of(scan)
        z = made.on_moving(found.moving_z, grid)
        threshold = defined(self.inputs.threshold)
        threshold = found.threshold if threshold is None else float(threshold)
        regions = change_regions(
            z,
            threshold=threshold,
            min_volume_mm3=self.inputs.min_volume_mm3,
            mask=mask,
            dseg=read_like(read_dseg, self.inputs.scan_dseg, scan),
        )
        weight = made.image(match_weight(found.fixed_z, threshold))
        self._results.update(
            out_excess=save_image(
                made.on_moving(found.moving_excess, grid), folder / "excess.nii.gz", like=scan
            ),
            out_z=save_image(z, folder / "z.nii.gz", like=scan),
            out_mask=save_image(regions.mask, folder / "regions.nii.gz", like=scan),
            out_regions=write_table(regions.rows, folder / "regions.tsv", REGION_COLUMNS),
            out_weight=save_image(weight, folder / "weight.nii.gz", like=template),
        )
        return {
            "calibrated": True,
            "controls": len(controls.controls),
            "threshold": threshold,
            "regions": len(regions.rows),
            "regions_mm3": round(sum(row["volume_mm3"] for row in regions.rows), 1),
            "z_max": float(found.moving_z.max()),
        }


class _SessionChangeInputSpec(_TopologyPairInputSpec):
    first_image = File(exists=True, mandatory=True, desc="scan of the earlier session")
    second_image = File(exists=True, mandatory=True, desc="scan of the later session")
    frame2first_xfm = File(
        exists=True,
        mandatory=True,
        desc="ITK transform that brings the earlier scan onto the template: its affine alignment",
    )
    frame2second_xfm = File(exists=True, mandatory=True, desc="the same of the later scan")
    in_xfm = File(
        exists=True,
        desc="ITK composite that brings the later scan onto the earlier; the network starts from it",
    )
    in_inverse_xfm = File(exists=True, desc="ITK composite of the opposite direction")
    first_mask = File(exists=True, desc="brain mask of the earlier scan")
    second_mask = File(exists=True, desc="brain mask of the later scan")
    second_dseg = File(exists=True, desc="structures of the later scan: names for the regions")
    first_z = File(exists=True, desc="z-score of the earlier scan against the template: tells the direction")
    second_z = File(exists=True, desc="z-score of the later scan against the template")


class _SessionChangeOutputSpec(_MetricsOutputSpec):
    first_score = File(exists=True, desc="L_sym on the earlier scan's grid, nats")
    second_score = File(exists=True, desc="L_sym on the later scan's grid, nats")
    first_out_z = File(
        exists=True, desc="calibrated z-score on the earlier scan's grid; undefined without controls"
    )
    second_out_z = File(exists=True, desc="the same on the later scan's grid")
    first_out_mask = File(exists=True, desc="regions on the earlier scan's grid: 1 appeared, 2 disappeared")
    second_out_mask = File(exists=True, desc="the same on the later scan's grid")
    out_regions = File(exists=True, desc="TSV of the later scan's regions, with direction and volume change")


class SessionChange(ModelInterface):
    """Map what changed between two sessions, what appeared and what disappeared (network ``topology``).

    Examples
    --------
    >>> from hyperprep.interfaces.topology import SessionChange
    >>> change = SessionChange(
    ...     first_image="ses-1_T1w.nii.gz", second_image="ses-2_T1w.nii.gz",
    ...     frame2first_xfm="first.txt", frame2second_xfm="second.txt",
    ... )  # doctest: +SKIP
    >>> change.run().outputs.out_regions  # doctest: +SKIP
    '/current/folder/regions.tsv'
    """

    input_spec = _SessionChangeInputSpec
    output_spec = _SessionChangeOutputSpec
    _weights_name = "topology"

    def _compute(self, folder: Path) -> dict[str, Any]:
        from hyperprep.models.predict.session_change import compare_sessions
        from hyperprep.models.spatial.images import read_dseg, read_mask, read_scan

        digest = self._weights_digest()
        inputs = self.inputs
        first, second = read_scan(inputs.first_image), read_scan(inputs.second_image)
        made = compare_sessions(
            first,
            second,
            frame2first=read_affine(inputs.frame2first_xfm),
            frame2second=read_affine(inputs.frame2second_xfm),
            first_mask=read_like(read_mask, inputs.first_mask, first),
            second_mask=read_like(read_mask, inputs.second_mask, second),
            second_dseg=read_like(read_dseg, inputs.second_dseg, second),
            first_outlier=read_scan(inputs.first_z) if defined(inputs.first_z) else None,
            second_outlier=read_scan(inputs.second_z) if defined(inputs.second_z) else None,
            transforms=read_both(inputs.in_xfm, inputs.in_inverse_xfm),
            controls=read_controls(self, "sessions"),
            min_volume_mm3=inputs.min_volume_mm3,
            **self._model_options(),
        )
        sides = (
            ("first", first, made.first_score, made.first_mask, made.first_z),
            ("second", second, made.second_score, made.second_mask, made.second_z),
        )
        for side, scan, score, mask, z in sides:
            self._results[f"{side}_score"] = save_image(score, folder / f"{side}_score.nii.gz", like=scan)
            self._results[f"{side}_out_mask"] = save_image(mask, folder / f"{side}_mask.nii.gz", like=scan)
            if z is not None:
                self._results[f"{side}_out_z"] = save_image(z, folder / f"{side}_z.nii.gz", like=scan)
        self._results["out_regions"] = write_table(
            made.rows, folder / "regions.tsv", (*REGION_COLUMNS, "direction", "log_volume_change")
        )
        return {**made.metrics, "weights_sha256": digest}


def read_both(forward: Any, inverse: Any) -> Any:
    """Read the two transforms of a registration; None unless both are given."""
    from hyperprep.models.spatial.transforms import read_transform

    if not (defined(forward) and defined(inverse)):
        return None
    return read_transform(forward), read_transform(inverse)


def read_controls(interface: ModelInterface, kind: str) -> Any:
    """Read the control statistics that an interface was given, or those that ship with its weights.

    Parameters
    ----------
    interface
        With the input ``control_statistics``.
    kind
        ``"template"`` or ``"sessions"``.

    Returns
    -------
    ControlStatistics or None
        None where there are none, or none are wanted.

    Raises
    ------
    UsageError
        If they are of the other kind.
    """
    from hyperprep.exceptions import UsageError
    from hyperprep.models.spatial.controls import ControlStatistics
    from hyperprep.models.weights import find_controls, find_weights

    inputs = interface.inputs
    if not inputs.calibrate:
        return None
    path = defined(inputs.control_statistics)
    if path is None:
        entry = find_weights(
            "topology", path=defined(inputs.weights), weights_dir=defined(inputs.weights_dir)
        )
        path = find_controls(entry, kind)
    found = None if path is None else ControlStatistics.load(path)
    if found is not None and found.kind != kind:
        raise UsageError(f"{path} holds control statistics of the kind {found.kind!r}; {kind!r} is needed.")
    return found
