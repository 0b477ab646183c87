"""Pure functions on tensors: divergences and bounds."""
