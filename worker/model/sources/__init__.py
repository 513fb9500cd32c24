"""Bundle sources: the package, a folder, S3, the Hugging Face hub, or a name of the catalogue.

    bundles         entry points: locate, survey, available
    bundle_sources  one class per kind of source
    s3_cache        variants from S3 in the cache
    hub_cache       files from the hub in the cache, downloaded by hub_client
    catalogue       published networks by name
    prepared        those that were fetched and imported on this machine; what the source `default` stands for
    published_file  fetches the file of a network, with https_file and package_index

`bundles.locate` finds a bundle, fetches the variant to run and verifies it.
"""
