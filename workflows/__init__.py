"""Graphs of the pipeline, one ``init_<step>_wf`` per file.

A program starts at :func:`hyperprep.workflows.run.init_run_wf` (all participants of one run) with the
frozen dataclasses of :mod:`hyperprep.workflows.settings`; each smaller workflow can be used alone.
"""
