"""The workflow of one run: every participant's graph in one, built from the settings."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyperprep import __version__
from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.logs import LOGGER, participant_log_dir, shared_log_dir
from hyperprep.bidsapp.preflight import Plan, wants_topology
from hyperprep.bidsapp.query import ParticipantInput
from hyperprep.models.spatial.labels import known_labels
from hyperprep.models.weights.own_regions import without_own_regions
from hyperprep.workflows.participant import participant_workflow_name
from hyperprep.workflows.settings import AnatSettings

#: Names the folder below the working directory; another version never meets this one's results.
WORKFLOW_NAME = f"hyperprep_{__version__.replace('.', '_')}_wf"


def anat_settings(settings: Settings, plan: Plan) -> AnatSettings:
    """Hand on what the workflows obey."""
    return AnatSettings(
        bids_dir=settings.bids_dir,
        output_dir=settings.output_dir,
        labels=settings.labels,
        uncertainty=settings.uncertainty,
        probsegs=settings.probsegs,
        lam="auto" if settings.lam is None else settings.lam,
        lambda_regions=settings.lambda_regions,
        refine=settings.refine,  # type: ignore[arg-type]  # the parser allows these words only
        symmetric=settings.symmetric,
        longitudinal=settings.longitudinal,
        few_shot=plan.few_shot,
        skull_strip=settings.skull_strip_t1w,  # type: ignore[arg-type]
        device=plan.device,
        omp_nthreads=settings.threads_per_node,
        weights_dir=settings.weights_dir,
        weights_sha256=plan.weights_sha256,
        topology=wants_topology(settings),
        topology_calibrated=plan.control_statistics is not None,
        topology_mask=settings.topology_mask,
        control_statistics=plan.control_statistics,
        session_statistics=plan.session_statistics,
    )


def build_workflow(settings: Settings, plan: Plan, inputs: Sequence[ParticipantInput]) -> Any:
    """Build the graph of all participants that have a scan; nothing is computed.

    Parameters
    ----------
    settings
        Settings of this run.
    plan
        What the checks found out.
    inputs
        Participants with their sessions; those without any are left out.

    Returns
    -------
    niworkflows.engine.workflows.LiterateWorkflow
        With one workflow per participant, whose crash files go to that participant's log folder, and one for
        the template they share.
    """
    from hyperprep.workflows.run import init_run_wf

    workflow = init_run_wf(
        participants={p.label: [session.scan for session in p.sessions] for p in inputs if p.sessions},
        template=plan.template,
        settings=anat_settings(settings, plan),
        output_spaces=plan.output_spaces,
        base_dir=settings.work_dir,
        template_wf_name=template_workflow_name(settings, plan),
        name=WORKFLOW_NAME,
    )
    for participant in inputs:
        if participant.sessions:
            one = workflow.get_node(participant_workflow_name(participant.label))
            send_crashes_to(one, participant_log_dir(settings, participant.label))
    return workflow


def template_workflow_name(settings: Settings, plan: Plan) -> str:
    """Name the template's workflow after all that its results depend on.

    Runs that share a working directory thus share the prepared template if, and only if, it is the same.

    Examples
    --------
    >>> s = Settings(bids_dir=Path("/in"), output_dir=Path("/out"), analysis_level="participant")
    >>> template_workflow_name(s, Plan(participants=("01",)))
    'template_..._wf'
    """
    digests = without_own_regions(plan.weights_sha256)
    depends = (plan.template, plan.output_spaces, known_labels(settings.labels), sorted(digests.items()))
    return f"template_{hashlib.sha256(repr(depends).encode()).hexdigest()[:10]}_wf"


def send_crashes_to(workflow: Any, folder: Path) -> None:
    """Make every node of a workflow write its crash file into a folder."""
    for node in workflow._get_all_nodes():
        node.config = {"execution": {"crashdump_dir": str(folder)}}


def write_graph(workflow: Any, settings: Settings) -> Path:
    """Write the graph to ``logs/`` as Graphviz text, and as a picture where Graphviz is installed.

    Returns
    -------
    pathlib.Path
        The picture, or the text without it.
    """
    path = shared_log_dir(settings) / "graph.dot"
    path.parent.mkdir(parents=True, exist_ok=True)
    if shutil.which("dot"):
        workflow.write_graph(dotfilename=str(path), graph2use="colored", format="svg", simple_form=True)
        drawn = path.with_suffix(".svg")
        if drawn.is_file():
            return drawn
    workflow.write_hierarchical_dotfile(dotfilename=str(path), colored=True, simple_form=True)
    LOGGER.info("Graphviz is not installed: the graph is written as text only")
    return path
