"""Deformable registration whose regularisation weight is an input of the network."""

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


class _PairInputSpec(_ModelInputSpec):
    fixed_image = File(exists=True, mandatory=True, desc="image that stays")
    moving_image = File(exists=True, mandatory=True, desc="image that is brought to it")
    fixed2moving_xfm = File(
        exists=True,
        desc="ITK transform of the prealignment (a linear point map from fixed to moving); default: identity",
    )
    frame2fixed_xfm = File(
        exists=True,
        desc="ITK transform that brings the fixed image onto the template (a linear point map from template "
        "to fixed); by default the fixed image lies in the template's frame",
    )
    fixed_mask = File(exists=True, desc="brain mask of the fixed image")
    moving_mask = File(exists=True, desc="brain mask of the moving image")
    fixed_dseg = File(exists=True, desc="segmentation of the fixed image; steers the search of lambda")
    moving_dseg = File(exists=True, desc="segmentation of the moving image, same label numbers")
    lambda_regions = traits.List(
        traits.Str,
        desc="regions whose overlap the search of lambda maximises: names, FreeSurfer numbers or "
        "super-regions; by default all labels",
    )
    hyperparameters = traits.Dict(
        traits.Str,
        traits.Float,
        desc="values of the weights' further hyperparameters by name (gamma, w), where they have any; by "
        "default what the weights state",
    )
    lambda_search = traits.Enum(
        "bounded",
        "gradient",
        usedefault=True,
        desc="how lambda is searched: by scores alone, or along the score's derivative by lambda",
    )
    sweep_steps = traits.Range(
        low=0, high=101, value=0, usedefault=True,
        desc="how many evenly spaced lambdas are also registered, for the report's slider; 0 for none",
    )  # fmt: skip


class _HyperMorphInputSpec(_PairInputSpec):
    lam = traits.Either(
        traits.Enum("auto"),
        traits.Range(low=0.0, high=1.0),
        default="auto",
        usedefault=True,
        desc="regularisation weight in [0, 1], or auto: searched for this pair of images",
    )
    refine = traits.Enum("ncc", "none", usedefault=True, desc="optimise the network's result on this pair")
    symmetric = traits.Bool(
        False, usedefault=True, desc="register in both directions and take the average; twice the time"
    )
    fixed_weight = File(
        exists=True,
        desc="in [0, 1], in the fixed image's space: how much each place counts when the result is refined; "
        "0 where no match exists",
    )


class _HyperMorphOutputSpec(_MetricsOutputSpec):
    out_xfm = File(
        exists=True,
        desc="ITK composite that brings the moving image onto the fixed one, with the prealignment",
    )
    out_inverse_xfm = File(exists=True, desc="ITK composite that brings the fixed image onto the moving one")
    out_file = File(exists=True, desc="moving image on the fixed image's grid")
    out_jacobian = File(exists=True, desc="Jacobian determinant of the deformation, on the network's grid")
    lambda_curve = File(exists=True, desc="TSV: lambda, Dice per region, similarity, regularity, chosen")
    lambda_sweep = File(exists=True, desc="registrations by lambda (NPZ), where they were asked for")
    lam = traits.Float(desc="regularisation weight used")


class HyperMorph(ModelInterface):
    """Register two images (network ``hypermorph``, 2 mm) after a linear prealignment.

    Examples
    --------
    >>> from hyperprep.interfaces.register import HyperMorph
    >>> register = HyperMorph(fixed_image="tpl.nii.gz", moving_image="T1w.nii.gz", lam=0.4)  # doctest: +SKIP
    >>> register.run().outputs.out_xfm  # doctest: +SKIP
    '/current/folder/moving_to_fixed.h5'
    """

    input_spec = _HyperMorphInputSpec
    output_spec = _HyperMorphOutputSpec
    _weights_name = "hypermorph"

    def _compute(self, folder: Path) -> dict[str, Any]:
        from hyperprep.models.predict.register import register
        from hyperprep.models.spatial.images import read_scan

        digest = self._weights_digest()
        fixed, moving = read_scan(self.inputs.fixed_image), read_scan(self.inputs.moving_image)
        made = register(
            fixed,
            moving,
            fixed2moving=read_affine(defined(self.inputs.fixed2moving_xfm)),
            frame2fixed=read_affine(defined(self.inputs.frame2fixed_xfm)),
            **companions(self.inputs, fixed, moving),
            lam=self.inputs.lam,
            hyperparameters=defined(self.inputs.hyperparameters),
            regions=tuple(defined(self.inputs.lambda_regions) or ()),
            search=self.inputs.lambda_search,
            refine=self.inputs.refine,
            symmetric=self.inputs.symmetric,
            **self._weighting(),
            sweep_steps=self.inputs.sweep_steps,
            **self._model_options(),
        )
        self._save(made, fixed, folder)
        return {**made.metrics, "weights_sha256": digest, "lambda": made.lam, "refine": self.inputs.refine}

    def _weighting(self) -> dict[str, Any]:
        """Read the weight of the fixed image's places, where there is one."""
        import nibabel as nb

        path = defined(self.inputs.fixed_weight)
        return {"fixed_weight": nb.load(path)} if path else {}

    def _save(self, made: Any, fixed: Any, folder: Path) -> None:
        import nibabel as nb

        from hyperprep.models.spatial.measures import jacobian_determinant
        from hyperprep.models.spatial.transforms import write_transform

        determinant = nb.Nifti1Image(jacobian_determinant(made.forward), made.forward.grid.affine)
        self._results.update(
            out_xfm=str(write_transform(made.chain(), folder / "moving_to_fixed.h5")),
            out_inverse_xfm=str(write_transform(made.inverse_chain(), folder / "fixed_to_moving.h5")),
            out_file=save_image(made.moved, folder / "moved.nii.gz", like=fixed),
            out_jacobian=save_image(determinant, folder / "jacobian.nii.gz", like=fixed),
            lambda_curve=write_table(made.curve, folder / "lambda_curve.tsv"),
            lam=float(made.lam),
        )
        if made.sweep is not None:
            self._results["lambda_sweep"] = str(made.sweep.save(folder / "lambda_sweep.npz"))


class _TuneLambdaOutputSpec(_MetricsOutputSpec):
    lam = traits.Float(desc="regularisation weight that suits this pair best")
    lambda_curve = File(exists=True, desc="TSV: lambda, Dice per region, similarity, regularity, chosen")
    lambda_sweep = File(exists=True, desc="registrations by lambda (NPZ), where they were asked for")


class TuneLambda(ModelInterface):
    """Find the regularisation weight for a pair of images; nothing is registered for keeps.

    The network is frozen, lambda the only variable: by the overlap of segmentations where both are given,
    else it is the largest that keeps 98 % of the highest similarity of the images.

    Examples
    --------
    >>> from hyperprep.interfaces.register import TuneLambda
    >>> tune = TuneLambda(fixed_image="tpl.nii.gz", moving_image="T1w.nii.gz")  # doctest: +SKIP
    >>> tune.run().outputs.lam  # doctest: +SKIP
    0.52
    """

    input_spec = _PairInputSpec
    output_spec = _TuneLambdaOutputSpec
    _weights_name = "hypermorph"

    def _compute(self, folder: Path) -> dict[str, Any]:
        from hyperprep.models.predict.register import register
        from hyperprep.models.spatial.images import read_scan

        digest = self._weights_digest()
        fixed, moving = read_scan(self.inputs.fixed_image), read_scan(self.inputs.moving_image)
        made = register(
            fixed,
            moving,
            fixed2moving=read_affine(defined(self.inputs.fixed2moving_xfm)),
            frame2fixed=read_affine(defined(self.inputs.frame2fixed_xfm)),
            **companions(self.inputs, fixed, moving),
            lam="auto",
            hyperparameters=defined(self.inputs.hyperparameters),
            regions=tuple(defined(self.inputs.lambda_regions) or ()),
            search=self.inputs.lambda_search,
            refine="none",
            sweep_steps=self.inputs.sweep_steps,
            **self._model_options(),
        )
        self._results["lam"] = float(made.lam)
        self._results["lambda_curve"] = write_table(made.curve, folder / "lambda_curve.tsv")
        if made.sweep is not None:
            self._results["lambda_sweep"] = str(made.sweep.save(folder / "lambda_sweep.npz"))
        return {
            "lambda": float(made.lam),
            **{key: made.metrics[key] for key in ("lambda_search", "lambda_evaluations", "lambda_gradients")},
            "weights_sha256": digest,
        }


def companions(inputs: Any, fixed: Any, moving: Any) -> dict[str, Any]:
    """Read the masks and segmentations that an interface was given, on their images' grids.

    Parameters
    ----------
    inputs
        Inputs of the interface: ``fixed_mask``, ``moving_mask``, and ``fixed_dseg``, ``moving_dseg`` as far
        as it has them.
    fixed, moving
        The images.

    Returns
    -------
    dict
        The same names; None for what was not given.
    """
    from hyperprep.models.spatial.images import read_dseg, read_mask

    given: dict[str, Any] = {}
    for side, img in {"fixed": fixed, "moving": moving}.items():
        for kind, read in {"mask": read_mask, "dseg": read_dseg}.items():
            name = f"{side}_{kind}"
            if inputs.trait(name) is not None:
                given[name] = read_like(read, getattr(inputs, name), img)
    return given
