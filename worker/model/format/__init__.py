"""The bundle format: file layout, manifest, choice of a variant, and the writer that publishes a bundle atomically."""
