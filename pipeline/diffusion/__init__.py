"""Generators: a class-conditional DDPM as a task on the training loop, and its sampler."""
