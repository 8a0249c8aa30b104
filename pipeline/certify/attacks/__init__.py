"""Attacks on what is certified: one that succeeds inside a certified radius refutes it.

Read battery.py first. Gradients are float32; whether a point falls is decided in float64.
"""
