"""Options that limit and choose what the run may use."""

from __future__ import annotations

from argparse import ArgumentParser

from hyperprep.bidsapp.cli import types


def add_resource_options(parser: ArgumentParser) -> None:
    """Add the options for threads, memory, device and scheduler."""
    group = parser.add_argument_group("resources")
    group.add_argument(
        "--nprocs",
        "--nthreads",
        "--n-cpus",
        "--n_cpus",
        dest="nprocs",
        type=types.positive_int,
        metavar="N",
        help="most threads at the same time over all steps (default: the cores this process may use)",
    )
    group.add_argument(
        "--omp-nthreads",
        "--omp_nthreads",
        dest="omp_nthreads",
        type=types.positive_int,
        metavar="N",
        help="most threads of one step (default: --nprocs, at most 8)",
    )
    group.add_argument(
        "--mem",
        "--mem-mb",
        "--mem_mb",
        dest="mem_gb",
        type=types.memory_gb,
        metavar="AMOUNT",
        help="memory the scheduler may fill; a bare number is MB, units as in 8GB are understood "
        "(default: 90 %% of what there is)",
    )
    group.add_argument(
        "--device",
        dest="device",
        type=types.device,
        metavar="{auto,cpu,cuda,cuda:N}",
        help="where the networks run; a device that is named and absent is an error (default: auto)",
    )
    group.add_argument(
        "--use-plugin",
        "--nipype-plugin-file",
        dest="use_plugin",
        type=types.existing_file,
        metavar="FILE",
        help="YAML or JSON file with 'plugin' and 'plugin_args' of a Nipype plugin, instead of MultiProc",
    )
