"""Solvers: algorithms that lead from noise to latents along a list of noise levels.

Each is written from its paper, and gives the results of ComfyUI's sampler of that name. All work on
latents plus noise of standard deviation sigma, in which the paper's alpha is 1. A solver is called
with the model, latents [frames, 4, height, width], noise levels [steps + 1], the noise of its steps
and the noise schedule of the training; it returns the latents at the last level.
"""
