"""Runs as jobs: submitted to SLURM through submitit, or started here; started again if it helps.

Notable: nothing is imported here, since the end of every attempt loads `afterwards` in a moment.
"""
