"""All participants of one run, around one template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow

from hyperprep.workflows.participant import init_participant_wf
from hyperprep.workflows.settings import AnatSettings, OutputSpace, Scan, Template
from hyperprep.workflows.template import TEMPLATE_FIELDS, init_template_wf, reference_field


def init_run_wf(
    *,
    participants: Mapping[str, Sequence[Scan]],
    template: Template,
    settings: AnatSettings,
    output_spaces: Sequence[OutputSpace] = (OutputSpace(),),
    base_dir: Path | None = None,
    template_wf_name: str = "template_wf",
    name: str = "hyperprep_wf",
) -> Workflow:
    """Prepare the template once and process every participant with it.

    Parameters
    ----------
    participants : mapping
        Label without ``sub-`` to the scans of that participant; those without a scan are left out.
    template : Template
        The standard brain.
    settings : AnatSettings
        How the scans are processed.
    output_spaces : sequence of OutputSpace
        Grids in the template's space on which results are also written.
    base_dir : Path or None
        Folder of intermediate results.
    template_wf_name : str
        Name of the template's workflow; runs that share `base_dir` but not the template need different ones.
    name : str
        Name of the workflow.

    Inputs
    ------
    template_file, template_mask_file
        Preset from ``template``; undefined for nilearn's template.

    Outputs
    -------
    None; results go to the sinks.

    Returns
    -------
    niworkflows.engine.Workflow
        With the template's workflow and ``sub_<label>_wf`` for each participant.
    """
    workflow = Workflow(name=name, base_dir=str(base_dir) if base_dir is not None else None)
    files = {"template_file": template.image, "template_mask_file": template.mask}
    inputnode = pe.Node(niu.IdentityInterface(fields=list(files)), name="inputnode")
    for field, path in files.items():
        if path is not None:
            setattr(inputnode.inputs, field, str(path))
    template_wf = init_template_wf(
        template=template,
        output_spaces=output_spaces,
        labels=settings.labels,
        device=settings.device,
        omp_nthreads=settings.omp_nthreads,
        weights_dir=settings.weights_dir,
        weights_sha256=settings.weights_sha256,
        name=template_wf_name,
    )
    workflow.add_nodes([template_wf])
    workflow.connect([(inputnode, template_wf, [(field, f"inputnode.{field}") for field in files])])
    fields = [*TEMPLATE_FIELDS, *(reference_field(index) for index in range(len(output_spaces)))]
    for label, scans in participants.items():
        if not scans:
            continue
        participant_wf = init_participant_wf(
            participant=label,
            scans=scans,
            template=template,
            settings=settings,
            output_spaces=output_spaces,
            with_template=False,
        )
        shared = [(f"outputnode.{field}", f"inputnode.{field}") for field in fields]
        workflow.connect([(template_wf, participant_wf, shared)])
    return workflow
