"""Figures of merit as pure functions on arrays: no input or output, no models, no downloads.

Import the module you need: ``from latlas.metrics.distances import frechet_distance``. Only
``features`` and ``paired`` need torch.
"""
