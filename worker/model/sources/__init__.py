"""Bundle sources: the package, a folder, S3 or the Hugging Face hub.

    bundles         entry points: locate, survey, available
    bundle_sources  one class per kind of source
    s3_cache        variants from S3 in the cache
    hub_cache       files from the hub in the cache, downloaded by hub_client

`bundles.locate` finds a bundle, fetches the variant to run and verifies it.
"""
