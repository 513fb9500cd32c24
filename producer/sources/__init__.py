"""Where images come from. Lazy, in constant memory, whatever the source.

    opening   SOURCE as typed -> `Source`: a root and an iterator of items
      listing prefixes and globs in S3 · local folders and files · lists (txt, csv, jsonl) · S3 Inventory
    filters   names -> facts (size, age) -> sample -> limit, with a count for every reason to leave something out
    spool     what was chosen, on disk, until it is submitted
    upload    local files to the bucket; what is there unchanged is not sent again

Whether an object is an image is decided by its content, in the worker; here only names are looked at.
"""
