"""Training of denoisers by denoising score matching."""
