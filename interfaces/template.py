"""The standard brain of a run: its image, its mask, and grids over it."""

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec, traits

from hyperprep.interfaces.base import defined, itk_threads, save_image


class _LoadTemplateInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, desc="template; by default the MNI152 template that nilearn carries, at 1 mm")
    in_mask = File(exists=True, desc="its brain mask, on any grid")


class _LoadTemplateOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="template, float32")
    out_mask = File(exists=True, desc="brain mask on the template's grid; undefined for a file without one")


class LoadTemplate(SimpleInterface):
    """Put a template and its brain mask into files that the pipeline owns.

    Examples
    --------
    >>> from hyperprep.interfaces.template import LoadTemplate
    >>> LoadTemplate().run().outputs.out_mask  # doctest: +SKIP
    '/current/folder/template_mask.nii.gz'
    """

    input_spec = _LoadTemplateInputSpec
    output_spec = _LoadTemplateOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import nibabel as nb

        from hyperprep.models.predict.conform import conform, nonzero_mask
        from hyperprep.models.spatial.images import read_mask, read_scan

        folder = Path(runtime.cwd)
        source = defined(self.inputs.in_file)
        if source:
            like, template = nb.load(source), conform(read_scan(source))
        else:
            from nilearn.datasets import load_mni152_template

            like = load_mni152_template(resolution=1)
            like.header.set_sform(like.affine, 4)
            template = conform(like)
        self._results["out_file"] = save_image(template, folder / "template.nii.gz", like=like)
        given = defined(self.inputs.in_mask)
        if given or not source:
            mask = read_mask(given, like=template) if given else nonzero_mask(template)
            self._results["out_mask"] = save_image(mask, folder / "template_mask.nii.gz", like=like)
        return runtime


class _CheckFrameInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="template, named in the message")
    centroids = File(exists=True, mandatory=True, desc="JSON: centroids found in the template, RAS mm")
    model_centroids = File(exists=True, mandatory=True, desc="JSON: centroids in the networks' frame, RAS mm")
    tolerance = traits.Range(
        low=0.0, value=20.0, usedefault=True, desc="largest accepted mean distance of the centroids in mm"
    )


class _CheckFrameOutputSpec(TraitedSpec):
    centroids = File(exists=True, desc="the template's centroids, passed on")
    distance = traits.Float(desc="mean distance in mm")


class CheckFrame(SimpleInterface):
    """Refuse a template that lies far from the frame that the networks were trained in.

    Raises
    ------
    TemplateError
        If the mean distance of the structures' centroids exceeds the tolerance.

    Examples
    --------
    >>> from hyperprep.interfaces.template import CheckFrame
    >>> check = CheckFrame(in_file="t.nii", centroids="a.json", model_centroids="b.json")  # doctest: +SKIP
    >>> check.run().outputs.distance  # doctest: +SKIP
    2.4
    """

    input_spec = _CheckFrameInputSpec
    output_spec = _CheckFrameOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from hyperprep.exceptions import TemplateError
        from hyperprep.interfaces.prealign import read_centroids

        found = read_centroids(self.inputs.centroids) or {}
        expected = read_centroids(self.inputs.model_centroids) or {}
        shared = sorted(set(found) & set(expected))
        distances = [np.linalg.norm(found[number] - expected[number]) for number in shared]
        mean = float(np.mean(distances)) if distances else float("inf")
        if not mean <= self.inputs.tolerance:
            raise TemplateError(
                f"The template {self.inputs.in_file} does not lie in an MNI-like frame: its structures are "
                f"{mean:.0f} mm from where the networks expect them. Give a template in RAS mm with its "
                "origin near the anterior commissure, or align it to MNI152 first."
            )
        self._results.update(centroids=self.inputs.centroids, distance=mean)
        return runtime


class _ReferenceGridInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="template whose field of view is kept")
    spacing = traits.Range(low=0.1, high=20.0, mandatory=True, desc="isotropic voxel size in mm")


class _ReferenceGridOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the template on a grid of that voxel size")


class ReferenceGrid(SimpleInterface):
    """Make an isotropic grid over a template's field of view; the first voxel's centre stays in place.

    Examples
    --------
    >>> from hyperprep.interfaces.template import ReferenceGrid
    >>> ReferenceGrid(in_file="template.nii.gz", spacing=2).run().outputs.out_file  # doctest: +SKIP
    '/current/folder/reference.nii.gz'
    """

    input_spec = _ReferenceGridInputSpec
    output_spec = _ReferenceGridOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import nibabel as nb
        import numpy as np

        from hyperprep.models.spatial.grids import Grid
        from hyperprep.models.spatial.images import read_scan
        from hyperprep.models.spatial.transforms import resample

        template = read_scan(self.inputs.in_file)
        grid = Grid.of(template)
        factors = self.inputs.spacing / grid.spacing
        affine = grid.affine.copy()
        affine[:3, :3] *= factors
        sizes = np.ceil(np.asarray(grid.shape) / factors - 1e-6).astype(int)
        finer = Grid((int(sizes[0]), int(sizes[1]), int(sizes[2])), affine)
        with itk_threads(1):
            made = resample(template, finer, [np.eye(4)])
        like = nb.load(self.inputs.in_file)
        self._results["out_file"] = save_image(made, Path(runtime.cwd) / "reference.nii.gz", like=like)
        return runtime
