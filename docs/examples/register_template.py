"""HyperMorph where sMRIPrep has ANTs: a small anatomical workflow with the same fields.

sMRIPrep's ``init_register_template_wf`` takes ``moving_image`` and ``moving_mask`` and gives
``anat2std_xfm`` and ``std2anat_xfm``, made by ANTs. Here two nodes give the same; whatever followed
(``ApplyTransforms``, ``antsApplyTransforms``) takes the transforms as they are.

python docs/examples/register_template.py T1W MASK OUT_DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from hyperprep.interfaces.masks import MaskImage
from hyperprep.interfaces.prealign import AffinePrealign
from hyperprep.interfaces.register import HyperMorph
from hyperprep.interfaces.template import LoadTemplate
from hyperprep.interfaces.transform import ApplyTransform


def init_register_template_wf(*, omp_nthreads: int = 1, name: str = "register_template_wf") -> pe.Workflow:
    """Register a brain to the MNI152 template.

    Inputs
    ------
    moving_image, moving_mask
        T1w image and its brain mask.

    Outputs
    -------
    anat2std_xfm, std2anat_xfm
        ITK composites, affine included.
    std_t1w
        The brain on the template's grid.
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(niu.IdentityInterface(fields=["moving_image", "moving_mask"]), name="inputnode")
    outputnode = pe.Node(
        niu.IdentityInterface(fields=["anat2std_xfm", "std2anat_xfm", "std_t1w"]), name="outputnode"
    )
    template = pe.Node(LoadTemplate(), name="template")
    strip = pe.Node(MaskImage(), name="strip")
    affine = pe.Node(AffinePrealign(num_threads=omp_nthreads), name="affine", n_procs=omp_nthreads)
    # without segmentations, lambda is chosen by similarity, with the deformation's regularity bounded
    deform = pe.Node(HyperMorph(num_threads=omp_nthreads), name="deform", n_procs=omp_nthreads)
    resample = pe.Node(ApplyTransform(interpolation="bspline"), name="resample")
    workflow.connect([
        (inputnode, strip, [("moving_image", "in_file"), ("moving_mask", "in_mask")]),
        (strip, affine, [("out_file", "moving_image")]),
        (inputnode, affine, [("moving_mask", "moving_mask")]),
        (template, affine, [("out_file", "fixed_image"), ("out_mask", "fixed_mask")]),
        (strip, deform, [("out_file", "moving_image")]),
        (inputnode, deform, [("moving_mask", "moving_mask")]),
        (template, deform, [("out_file", "fixed_image"), ("out_mask", "fixed_mask")]),
        (affine, deform, [("out_xfm", "fixed2moving_xfm")]),
        (strip, resample, [("out_file", "input_image")]),
        (template, resample, [("out_file", "reference_image")]),
        (deform, resample, [("out_xfm", "transforms")]),
        (deform, outputnode, [("out_xfm", "anat2std_xfm"), ("out_inverse_xfm", "std2anat_xfm")]),
        (resample, outputnode, [("output_image", "std_t1w")]),
    ])  # fmt: skip
    return workflow


def main(argv: list[str] | None = None) -> None:
    """Register one brain and store what came out below OUT_DIR."""
    from nipype.interfaces.io import ExportFile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for argument in ("t1w", "mask", "out_dir"):
        parser.add_argument(argument, type=Path)
    args = parser.parse_args(argv)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    workflow = init_register_template_wf(omp_nthreads=2)
    workflow.base_dir = str(args.out_dir / "work")
    workflow.inputs.inputnode.moving_image = str(args.t1w.absolute())
    workflow.inputs.inputnode.moving_mask = str(args.mask.absolute())
    outputnode = workflow.get_node("outputnode")
    for field, name in (
        ("anat2std_xfm", "from-T1w_to-MNI152.h5"),
        ("std2anat_xfm", "from-MNI152_to-T1w.h5"),
        ("std_t1w", "space-MNI152_T1w.nii.gz"),
    ):
        store = pe.Node(ExportFile(clobber=True), name=f"store_{field}")
        store.inputs.out_file = str((args.out_dir / name).absolute())
        workflow.connect([(outputnode, store, [(field, "in_file")])])
    workflow.run()


if __name__ == "__main__":
    main()
