"""Bundles that come with the package, one folder each, found as `builtin:NAME`.

`starter`, the default, is trained: `make starter` does it again, `starter/MODEL_CARD.md` says on what and how well.
`contrast` is generated: `python -m worker.convert.contrast worker/model/builtin/contrast`.
"""
