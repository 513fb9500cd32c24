"""Bytes to pixels to bytes: pure functions over Pillow and NumPy.

    object bytes ── decode ──> Picture ── to_tensor ──> u8 [1, size, size, 3] ──> (the model)
                                  │                                                    │
    output bytes <── encode <── render <───────────────────────── u8 [h, w] <──────────┘
                                  ├── subject   crop, size, matte
                                  ├── refine    the subject's own colours at soft edges
                                  ├── compose   cut-out, composite
                                  └── quality   facts about the mask

Knows neither S3 nor OpenVINO nor Celery. The first code in the flow that looks at untrusted bytes.
"""
