"""Bytes to pixels to bytes: pure functions over Pillow and NumPy.

    object bytes ── decode ──> Picture ── to_tensor ──> u8 [1, size, size, 3] ──> (the model)
                                  │                                                    │
    PNG bytes <── encode <── compose <────────── to_mask <────────── u8 [h, w] <───────┘

Knows neither S3 nor OpenVINO nor Celery. The first code in the flow that looks at untrusted bytes.
"""
