"""The built-in model `contrast`: the subject is what does not look like the picture's border. Nothing is trained.

    image -> CIELAB (colour) -> background fitted from the border inwards (background)
          -> what differs, denoised, without shadows -> Mahalanobis distance (residual)
          -> threshold -> soft mask -> small holes filled (mask) -> logits (graph)

It finds subjects on plain, shaded or softly varying backgrounds, and needs no download. It knows no objects: on a busy
background, or where the subject fills most of the picture's border, it gives a poor mask.

The graph has no MatMul, Convolution or Interpolate on purpose. With the inference precision bf16 the CPU plugin lowers
such layers and all that comes before them, and keeps the rest in f32 (`Graph::EnforceInferencePrecision` in its
source); eight bits of mantissa are too few for the equations solved here.

`python -m worker.convert.contrast DIR` writes the bundle anew; the same OpenVINO gives the same bytes.
"""
