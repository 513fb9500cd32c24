"""How good a variant is: agreement with FP32, scores against true masks, verification of bundles."""
