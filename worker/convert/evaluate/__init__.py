"""Evaluation of variants: agreement with FP32, scores against true masks, and verification of whole bundles."""
