"""Samplers: Markov kernels over a batch of chains, and the loop that drives them."""
