"""Bytes to pixels to bytes: pure functions over Pillow and NumPy.

    object bytes ── decode ──> Picture ── to_tensor ──> u8 [1, height, width, 3] ──> (the model)
                                  │                                                    │
    output bytes <── encode <── render <───────────────────────── u8 [h, w] <──────────┘
                                  ├── subject   crop, size, matte
                                  ├── refine    foreground colours at soft edges
                                  ├── compose   cut-out, composite
                                  └── quality   measurements of the mask

This package does not depend on S3, OpenVINO or Celery. It is the first code that parses untrusted bytes.
"""
