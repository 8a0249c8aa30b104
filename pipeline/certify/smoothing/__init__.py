"""Randomized smoothing (Cohen, Rosenfeld & Kolter 2019), the field's other certificate.

Notable: it is here to be compared with, in the same table and plot, and it is not of the same kind.
Each radius holds with probability 1 − α over the noise that was drawn, and only for a classifier
that averages over noise; nothing else in this package rests on it.
"""
