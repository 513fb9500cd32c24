"""Finds how this machine runs a network best, by trying: `worker tune`. What it finds, `worker start` follows.

layouts   which divisions of the cores to try (pure)
sweep     tries them, all core sets of a layout at the same time
record    keeps the choice, with the machine and network it was made for
"""
