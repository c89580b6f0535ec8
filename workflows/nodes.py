"""Nodes of the networks, with the settings that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nipype.pipeline import engine as pe

from hyperprep.interfaces.base import ModelInterface


def model_node(
    interface: ModelInterface,
    *,
    name: str,
    device: str,
    omp_nthreads: int,
    mem_gb: float,
    weights_dir: Path | None = None,
    weights_sha256: Mapping[str, str] | None = None,
) -> pe.Node:
    """Make a node that runs a network.

    Parameters
    ----------
    interface : ModelInterface
        Its inputs get the device, the weights' folder and digest.
    name : str
        Name of the node.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    omp_nthreads : int
        Threads; they become the node's ``n_procs``.
    mem_gb : float
        Memory in GB that the scheduler reserves.
    weights_dir : Path or None
        Folder searched for weights first.
    weights_sha256 : mapping or None
        Digests by name of the network.

    Returns
    -------
    nipype.pipeline.engine.Node
        The node.
    """
    interface.inputs.device = device
    interface.inputs.use_gpu = device.startswith("cuda")
    if weights_dir is not None:
        interface.inputs.weights_dir = str(weights_dir)
    digest = (weights_sha256 or {}).get(interface._weights_name)
    if digest:
        interface.inputs.weights_sha256 = digest
    for further in interface._further_weights:
        digest = (weights_sha256 or {}).get(further)
        if digest:
            setattr(interface.inputs, f"{further}_weights_sha256", digest)
    return pe.Node(interface, name=name, n_procs=omp_nthreads, mem_gb=mem_gb)
