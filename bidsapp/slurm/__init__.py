"""Slurm: the array job of ``bidsapp-slurm``, and Nipype's plugins that make a job of each step."""
