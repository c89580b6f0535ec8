"""All sessions of one participant."""

from __future__ import annotations

from collections.abc import Sequence

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow

from hyperprep.workflows.anat import init_anat_wf
from hyperprep.workflows.longitudinal import FROM_EACH, init_longitudinal_wf
from hyperprep.workflows.settings import AnatSettings, OutputSpace, Scan, Template
from hyperprep.workflows.template import TEMPLATE_FIELDS, init_template_wf, reference_field


def participant_workflow_name(participant: str) -> str:
    """Name of a participant's workflow, as Nipype allows it.

    Examples
    --------
    >>> participant_workflow_name("CR+1")
    'sub_CR_1_wf'
    """
    return f"sub_{''.join(char if char.isalnum() else '_' for char in participant)}_wf"


def init_participant_wf(
    *,
    participant: str,
    scans: Sequence[Scan],
    template: Template,
    settings: AnatSettings,
    output_spaces: Sequence[OutputSpace] = (OutputSpace(),),
    with_template: bool = True,
    name: str | None = None,
) -> Workflow:
    """Process every scan of a participant; on request, register the later ones to the first.

    Parameters
    ----------
    participant : str
        Label without ``sub-``.
    scans : sequence of Scan
        One scan per session, in order of time.
    template : Template
        The standard brain.
    settings : AnatSettings
        How the scans are processed.
    output_spaces : sequence of OutputSpace
        Grids in the template's space on which results are also written.
    with_template : bool
        Prepare the template here; else its results come in through ``inputnode``, shared with others.
    name : str or None
        Name of the workflow; None makes ``sub_<label>_wf``.

    Inputs
    ------
    template, template_mask, template_brain, template_dseg, template_centroids, reference_0, ...
        What :func:`~hyperprep.workflows.template.init_template_wf` puts out; only without ``with_template``.

    Outputs
    -------
    quality
        The stored JSON files with all figures, one per scan.

    Raises
    ------
    ValueError
        If there is no scan.
    """
    if not scans:
        raise ValueError(f"participant {participant} has no scan to process")
    workflow = Workflow(name=name or participant_workflow_name(participant))
    fields = [*TEMPLATE_FIELDS, *(reference_field(index) for index in range(len(output_spaces)))]
    inputnode = pe.Node(niu.IdentityInterface(fields=fields), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=["quality"]), name="outputnode")
    merge = pe.Node(niu.Merge(len(scans)), name="merge", run_without_submitting=True, mem_gb=0.1)
    workflow.connect([(merge, outputnode, [("out", "quality")])])
    if with_template:
        template_wf = init_template_wf(
            template=template,
            output_spaces=output_spaces,
            labels=settings.labels,
            device=settings.device,
            omp_nthreads=settings.omp_nthreads,
            weights_dir=settings.weights_dir,
            weights_sha256=settings.weights_sha256,
        )
        workflow.connect([(template_wf, inputnode, [(f"outputnode.{field}", field) for field in fields])])
    anat_wfs = []
    for index, scan in enumerate(scans):
        anat_wf = init_anat_wf(scan=scan, template=template, settings=settings, output_spaces=output_spaces)
        anat_wfs.append(anat_wf)
        workflow.connect([
            (inputnode, anat_wf, [(field, f"inputnode.{field}") for field in fields]),
            (anat_wf, merge, [("outputnode.quality", f"in{index + 1}")]),
        ])  # fmt: skip
    if settings.longitudinal:
        for scan, anat_wf in zip(scans[1:], anat_wfs[1:], strict=True):
            longitudinal_wf = init_longitudinal_wf(earlier=scans[0], later=scan, settings=settings)
            for one, which in ((anat_wfs[0], "earlier"), (anat_wf, "later")):
                fields = [*FROM_EACH, "t1w2template_xfm"]
                if settings.topology and settings.topology_calibrated:
                    fields.append("topology_z")
                workflow.connect([
                    (one, longitudinal_wf, [
                        (f"outputnode.{field}", f"inputnode.{which}_{field}") for field in fields
                    ]),
                ])  # fmt: skip
    return workflow
