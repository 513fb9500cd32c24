"""The bundle format: file layout, manifest, variants, and the writer that publishes a bundle atomically."""
