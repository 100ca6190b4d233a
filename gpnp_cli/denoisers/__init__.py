"""Denoisers: the priors. Each maps (v, sigma) to E[X | X + sigma W = v]."""
