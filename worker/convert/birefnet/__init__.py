"""BiRefNet as an OpenVINO graph, built straight from the arrays of a published checkpoint.

    checkpoint.load(path) -> arrays by published name -> network.build(arrays, size) -> ov.Model

`layout` lists the names and shapes for both backbones: Swin-T (the lite checkpoints) and Swin-L (all others).
`rewrites` holds the exact rewrites and their arithmetic, `windows` the constants of window attention. `encoder`,
`attention`, `aspp`, `decoder` and `image_branch` are the parts of the network; `ops` holds the OpenVINO helpers they
share. `presets` names the published checkpoints, and `tile_order` adapts weights to the order in which the image is
cut.

Source: Zheng et al., "Bilateral Reference for High-Resolution Dichotomous Image Segmentation"
(arXiv 2401.03407) and the checkpoints of `ZhengPeng7` on the Hugging Face hub.
"""
