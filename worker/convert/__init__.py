"""Offline: makes the OpenVINO models that workers run, and packs them as bundles. Imported by nothing at run time.

`package` writes a bundle; `contrast` builds the built-in model that needs no training.
"""
