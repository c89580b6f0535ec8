"""Segmentation of a scan: the structures asked for, and the tissues."""

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, OutputMultiObject, traits

from hyperprep.interfaces.base import (
    ModelInterface,
    _MetricsOutputSpec,
    _ModelInputSpec,
    defined,
    read_affine,
    save_image,
    write_table,
)


class _ConditionalSegmentationInputSpec(_ModelInputSpec):
    in_file = File(exists=True, mandatory=True, desc="scan, with or without skull")
    template2scan_xfm = File(
        exists=True,
        desc="ITK transform that brings the scan onto the template (a point map from template to scan); "
        "by default the brain is located first (network 'locate') and aligned to the atlas",
    )
    in_template_frame = traits.Bool(
        False, usedefault=True, desc="the scan lies in the template's frame, nothing has to be aligned"
    )
    mask = File(exists=True, desc="brain mask, on any grid; a rough one is enough")
    trust_mask = traits.Bool(
        False, usedefault=True, desc="the mask is the brain mask of the result, and nothing outside it"
    )
    labels = traits.List(
        traits.Str,
        ["all"],
        usedefault=True,
        desc="names, FreeSurfer numbers, super-regions, all, or regions of the weights 'regions'",
    )
    regions_weights_sha256 = traits.Str(
        desc="digest of the weights of own regions; part of the node's hash, as weights_sha256"
    )
    save_uncertainty = traits.Bool(False, usedefault=True, desc="write the entropy of the probabilities")
    samples = traits.Range(
        low=0,
        value=0,
        usedefault=True,
        desc="average so many networks with units left out at random (MC dropout); 0: the network as it is",
    )
    save_probsegs = traits.Bool(False, usedefault=True, desc="write one probability map per label")


class _ConditionalSegmentationOutputSpec(_MetricsOutputSpec):
    out_dseg = File(
        exists=True,
        desc="segmentation on the scan's grid: FreeSurfer numbers, 30001 upwards for super-regions, 31001 "
        "upwards for own regions",
    )
    out_legend = File(exists=True, desc="TSV that names the numbers")
    out_all_dseg = File(
        exists=True, desc="segmentation with all 30 leaf labels, whatever was asked for; steers registrations"
    )
    out_mask = File(exists=True, desc="brain mask on the scan's grid")
    out_tissue_dseg = File(exists=True, desc="grey matter 1, white matter 2, CSF 3")
    out_tissue_legend = File(exists=True, desc="TSV that names the tissues")
    out_tissues = OutputMultiObject(
        File(exists=True), desc="probability maps of grey matter, white matter, CSF, in this order"
    )
    out_probsegs = OutputMultiObject(File(exists=True), desc="one probability map per label asked for")
    out_entropy = File(exists=True, desc="entropy of the structures' probabilities inside the brain, bits")
    out_volumes = File(
        exists=True,
        desc="TSV of the volumes from probabilities: index, name, volume_mm3, relative_volume (to the "
        "average structure scaled to this head), expected_dice; last the estimated total intracranial volume",
    )


class ConditionalSegmentation(ModelInterface):
    """Segment a scan (network ``segment``, 2 mm).

    Examples
    --------
    >>> from hyperprep.interfaces.segment import ConditionalSegmentation
    >>> segment = ConditionalSegmentation(in_file="T1w.nii.gz", labels=["hippocampus"])  # doctest: +SKIP
    >>> segment.run().outputs.out_dseg  # doctest: +SKIP
    '/current/folder/dseg.nii.gz'
    """

    input_spec = _ConditionalSegmentationInputSpec
    output_spec = _ConditionalSegmentationOutputSpec
    _weights_name = "segment"
    _further_weights = ("regions",)

    def _compute(self, folder: Path) -> dict[str, Any]:
        from hyperprep.models.predict.segment import segment
        from hyperprep.models.predict.volumes import paint_regions, tissue_dseg, tissue_legend
        from hyperprep.models.spatial.images import read_mask, read_scan
        from hyperprep.models.spatial.labels import legend
        from hyperprep.models.weights.own_regions import resolve_all_labels

        regions = resolve_all_labels(self.inputs.labels, defined(self.inputs.weights_dir))
        own = [region for region in regions if region.is_own]
        digests = {"weights_sha256": self._weights_digest()}
        if own:
            digests["regions_weights_sha256"] = self._weights_digest("regions")
        scan = read_scan(self.inputs.in_file)
        mask = defined(self.inputs.mask)
        template2scan, rough_mask = self._place(scan)
        made = segment(
            scan,
            template2scan=template2scan,
            labels=tuple(self.inputs.labels),
            mask=read_mask(mask, like=scan) if mask else rough_mask,
            trust_mask=self.inputs.trust_mask and bool(mask),
            probabilities=self.inputs.save_probsegs,
            uncertainty=self.inputs.save_uncertainty,
            samples=self.inputs.samples,
            **self._model_options(),
        )

        def save(img: Any, name: str) -> str:
            return save_image(img, folder / f"{name}.nii.gz", like=scan)

        self._results.update(
            out_dseg=save(paint_regions(made.dseg, made.regions, own), "dseg"),
            out_legend=write_table(legend(regions), folder / "dseg.tsv"),
            out_all_dseg=save(made.leaves, "all_dseg"),
            out_mask=save(made.mask, "mask"),
            out_tissue_dseg=save(tissue_dseg(made.leaves), "tissues"),
            out_tissue_legend=write_table(tissue_legend(), folder / "tissues.tsv"),
            out_tissues=[save(made.tissues[name], f"label-{name}_probseg") for name in ("GM", "WM", "CSF")],
            out_volumes=write_table(made.volumes, folder / "volumes.tsv"),
        )
        if self.inputs.save_probsegs:
            self._results["out_probsegs"] = [
                save(img, f"label-{name}_probseg") for name, img in made.probsegs.items()
            ]
        if made.entropy is not None:
            self._results["out_entropy"] = save(made.entropy, "entropy")
        entropy = made.metadata["mean_entropy"]
        return {**digests, "mean_entropy": entropy, "labels": " ".join(self.inputs.labels)}

    def _place(self, scan: Any) -> tuple[Any, Any]:
        """Give the map from template to scan, and the rough brain mask where the brain had to be located."""
        import numpy as np

        given = defined(self.inputs.template2scan_xfm)
        if given:
            return read_affine(given), None
        if self.inputs.in_template_frame:
            return np.eye(4), None
        from hyperprep.models.predict.place import place

        options = {key: value for key, value in self._model_options().items() if key != "weights"}
        found = place(scan, **options)
        return found.template2scan, found.mask
