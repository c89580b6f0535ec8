"""Synthetic training images from label maps: ``draw`` picks parameters, ``apply`` turns them into tensors."""
