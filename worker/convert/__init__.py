"""Offline conversion: build the OpenVINO models that workers run, and write them as bundles. Workers never import it.

`package` writes a bundle of models held in memory. `contrast` builds the built-in model that is not trained;
`worker.training` builds the trained one.

`variants` converts the checkpoint of BiRefNet-lite to a bundle. `calibration` reads pictures, `variant_process` runs
`build_variant` once per variant in a separate process, `birefnet` builds the network, `quantise` stores it with
fewer bits, `int8` does so for published networks and tells where it does not hold, and `evaluate.agreement` compares
it with FP32. `worker.model.format.writer` writes a bundle completely or not at all.
"""
