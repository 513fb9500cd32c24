"""Bundles that come with the package, one folder each, found as `builtin:NAME`.

`contrast` is generated: `python -m worker.convert.contrast worker/model/builtin/contrast`.
"""
