"""BiRefNet-lite as an OpenVINO graph, built straight from the arrays of the published checkpoint.

    checkpoint.load(path) -> arrays by published name -> network.build(arrays, size) -> ov.Model

`layout` lists the names and shapes, `rewrites` the exact rewrites and their arithmetic, `windows` the constants of
window attention. `encoder`, `attention`, `aspp`, `decoder` and `image_branch` are the parts of the network; `ops` holds
the OpenVINO helpers they share.

Source: Zheng et al., "Bilateral Reference for High-Resolution Dichotomous Image Segmentation"
(arXiv 2401.03407) and the checkpoint `ZhengPeng7/BiRefNet_lite`.
"""
