"""Offline: makes the OpenVINO models that workers run, and packs them as bundles. Imported by nothing at run time.

`package` writes a bundle; `contrast` builds the built-in model that needs no training, `starter` trains the other.
`variants` makes the bundle of BiRefNet-lite from its checkpoint: `calibration` finds pictures, `variant_process` runs
`build_variant` once for each variant, which builds the network (`birefnet`), stores it with fewer bits (`quantise`) and
compares it with FP32 (`agreement`); `staging` sees to it that a bundle is whole or not there.
"""
