"""A task from a handful of examples: files of the examples in, its result on a scan out."""

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, InputMultiObject, OutputMultiObject, traits

from hyperprep.interfaces.base import (
    ModelInterface,
    _MetricsOutputSpec,
    _ModelInputSpec,
    defined,
    read_affine,
    save_image,
)


class _FewShotInputSpec(_ModelInputSpec):
    in_files = InputMultiObject(
        File(exists=True), mandatory=True, desc="one to three images of the scan, on one grid"
    )
    mask = File(exists=True, desc="brain mask of the scan, on any grid")
    template2scan_xfm = File(
        exists=True,
        desc="ITK transform that brings the scan onto the template (a point map from template to scan); "
        "by default the brain is located first (network 'locate') and aligned by its structures' centres",
    )
    in_template_frame = traits.Bool(
        False, usedefault=True, desc="the scan lies in the template's frame, nothing has to be aligned"
    )
    example_inputs = traits.List(
        traits.List(File(exists=True)),
        mandatory=True,
        desc="input images of each example, as many and in the same order as those of the scan",
    )
    example_outputs = InputMultiObject(
        File(exists=True), mandatory=True, desc="output of each example, on the grid of its first input"
    )
    example_masks = InputMultiObject(
        traits.Either(File(exists=True), None), desc="brain mask of each example, or None where there is none"
    )
    example_labels = traits.List(traits.Str, desc="how the examples are called; by default as their files")
    kind = traits.Enum(
        "auto", "mask", "image", usedefault=True, desc="what the task makes; auto looks at the outputs"
    )
    context_size = traits.Range(
        low=1, high=64, desc="examples shown at a time; by default all, within 4 and 16"
    )
    bootstraps = traits.Range(
        low=1, value=1, usedefault=True, desc="sets of examples; more tell better how sure the result is"
    )
    orientations = traits.List(
        traits.Enum(0, 1, 2), [0, 1, 2], usedefault=True, desc="sagittal 0, coronal 1, axial 2"
    )
    prealigned = traits.Bool(
        False, usedefault=True, desc="the examples lie in the scan's space already and are not aligned"
    )
    deform = traits.Bool(True, usedefault=True, desc="deform the examples onto the scan after the alignment")
    chunk = traits.Range(low=1, nohash=True, desc="examples in memory at a time; does not change the result")
    seed = traits.Int(0, usedefault=True, desc="seed of the bootstraps")


class _FewShotOutputSpec(_MetricsOutputSpec):
    out_file = File(exists=True, desc="mask (uint8) or image, on the scan's grid")
    out_probability = File(exists=True, desc="probability of a mask; undefined for images")
    out_spread = File(
        exists=True, desc="standard deviation over orientations and sets of examples, on the scan's grid"
    )
    out_xfms = OutputMultiObject(
        File(exists=True), desc="ITK transforms that bring each example used onto the scan"
    )
    out_examples = traits.List(traits.Str, desc="examples used, most similar first")
    out_places = traits.List(traits.Int, desc="their places among the examples given")
    out_meta = traits.Dict(desc="fields of the sidecar: examples, weights, settings")


class FewShot(ModelInterface):
    """Do to a scan what examples show (network ``neuralizer``).

    Examples
    --------
    >>> from hyperprep.interfaces.few_shot import FewShot
    >>> task = FewShot(
    ...     in_files=["sub-09_T1w.nii.gz"],
    ...     example_inputs=[["sub-01_T1w.nii.gz"], ["sub-02_T1w.nii.gz"]],
    ...     example_outputs=["sub-01_desc-claustrum_mask.nii.gz", "sub-02_desc-claustrum_mask.nii.gz"],
    ... )  # doctest: +SKIP
    >>> task.run().outputs.out_file  # doctest: +SKIP
    '/current/folder/few_shot.nii.gz'
    """

    input_spec = _FewShotInputSpec
    output_spec = _FewShotOutputSpec
    _weights_name = "neuralizer"

    def _compute(self, folder: Path) -> dict[str, Any]:
        from hyperprep.models.predict.few_shot import drawn_places, few_shot
        from hyperprep.models.spatial.examples import check_examples, read_example
        from hyperprep.models.spatial.images import read_mask, read_scan
        from hyperprep.models.spatial.transforms import write_transform

        digest = self._weights_digest()
        examples = self._examples()
        kind = check_examples(examples) if self.inputs.kind == "auto" else self.inputs.kind
        names = [example.label for example in examples]
        examples = [examples[place] for place in drawn_places(len(examples), self.inputs.seed)]
        scans = [read_scan(path) for path in self.inputs.in_files]
        template2scan, mask = self._place(scans[0])
        if defined(self.inputs.mask):
            mask = read_mask(self.inputs.mask, like=scans[0])
        made = few_shot(
            scans,
            [read_example(example, kind) for example in examples],
            kind=kind,
            template2scan=template2scan,
            mask=mask,
            context_size=defined(self.inputs.context_size),
            bootstraps=self.inputs.bootstraps,
            orientations=tuple(self.inputs.orientations),
            prealigned=self.inputs.prealigned,
            deform=self.inputs.deform,
            chunk=defined(self.inputs.chunk),
            seed=self.inputs.seed,
            **self._model_options(),
        )
        self._results.update(
            out_file=save_image(made.output, folder / "few_shot.nii.gz", like=scans[0]),
            out_spread=save_image(made.spread, folder / "spread.nii.gz", like=scans[0]),
            out_xfms=[
                str(write_transform([matrix], folder / f"example-{place}_to_scan.txt"))
                for place, matrix in enumerate(made.scan2example)
            ],
            out_examples=list(made.examples),
            out_places=[names.index(label) for label in made.examples],
            out_meta=self._sidecar(made, examples, digest),
        )
        if made.probability is not None:
            self._results["out_probability"] = save_image(
                made.probability, folder / "probability.nii.gz", like=scans[0]
            )
        return {**made.metadata, "weights_sha256": digest, "kind": kind}

    def _examples(self) -> list[Any]:
        """Put the files of each example together.

        Raises
        ------
        UsageError
            If the lists have different lengths.
        """
        from hyperprep.exceptions import UsageError
        from hyperprep.models.spatial.examples import Example

        inputs, outputs = self.inputs.example_inputs, self.inputs.example_outputs
        masks = defined(self.inputs.example_masks) or [None] * len(outputs)
        labels = defined(self.inputs.example_labels) or [Path(path).name.split(".")[0] for path in outputs]
        lengths = {len(inputs), len(outputs), len(masks), len(labels)}
        if len(lengths) > 1 or len(set(labels)) < len(labels):
            raise UsageError(
                "Inputs, outputs, masks and names of the examples must be as many as each other, and no "
                f"name twice; found {len(inputs)}, {len(outputs)}, {len(masks)}, and {labels}."
            )
        return [
            Example(label, tuple(map(Path, x)), Path(y), None if m is None else Path(m))
            for label, x, y, m in zip(labels, inputs, outputs, masks, strict=True)
        ]

    def _place(self, scan: Any) -> tuple[Any, Any]:
        """Give the map from template to scan, and a rough brain mask where the brain had to be located."""
        import numpy as np

        given = defined(self.inputs.template2scan_xfm)
        if given:
            return read_affine(given), None
        if self.inputs.in_template_frame:
            return np.eye(4), None
        from hyperprep.models.predict.locate import locate

        found = locate(scan, **{**self._model_options(), "weights": None})
        return found.template2scan(), found.mask

    def _sidecar(self, made: Any, examples: list[Any], digest: str) -> dict[str, Any]:
        files = {example.label: [*map(str, example.inputs), str(example.output)] for example in examples}
        fields = {
            "WeightsSHA256": digest,
            "ContextExamples": [
                {"Name": one["label"], "Similarity": one["similarity"], "Files": files[one["label"]]}
                for one in made.metadata["examples"]
            ],
            "ContextLeftOut": made.metadata["left_out"],
            "ContextSize": made.metadata["context_size"],
            "Bootstraps": made.metadata["bootstraps"],
            "NetworkResolution": made.metadata["resolution_mm"],
        }
        if made.metadata["output_range"] is not None:
            fields["OutputRange"] = made.metadata["output_range"]
        return fields
