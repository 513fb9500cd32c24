"""Bundle sources: the package, a folder, S3 or the Hugging Face hub. `bundles.locate` finds, fetches and verifies one.

bundles         entry points: locate, survey, available
bundle_sources  one class per kind of source
s3_cache        variants from S3 in the cache
hub_cache       files from the hub in the cache, over hub_client
"""
