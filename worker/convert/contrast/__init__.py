"""The built-in model `contrast`, which finds subjects by their colour contrast to the picture's border, untrained.

    image -> CIELAB (colour) -> background fitted from the border inwards (background)
          -> residual, denoised, without shadows -> Mahalanobis distance (residual)
          -> threshold -> soft mask -> small holes filled (mask) -> logits (graph)

It finds subjects on plain, shaded or softly varying backgrounds, and needs no download. It does not recognise objects:
on a busy background, or where the subject covers most of the picture's border, the mask is poor.

The graph deliberately contains no MatMul, Convolution or Interpolate. With the inference precision bf16 the CPU plugin
converts such layers and all layers before them to bf16, and keeps the rest in f32 (`Graph::EnforceInferencePrecision`
in its source). Eight bits of mantissa are too few for the equations solved here.

`python -m worker.convert.contrast DIR` writes the bundle again; the same OpenVINO version gives the same bytes.
"""
