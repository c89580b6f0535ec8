"""Nipype shells around the capabilities: file names in, file names out.

Each module holds one capability; every interface also runs alone, outside a workflow.
"""
