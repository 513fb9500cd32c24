"""Where images come from. Every source is listed lazily, in constant memory.

    resolve         SOURCE as typed -> one `KeySource`: a root and the items under it
      bucket          S3Prefix, S3Glob, S3Object
      local           LocalFolder, LocalGlob, LocalFiles
      key_list        KeyList (txt, csv, jsonl), StandardInput
      inventory       S3Inventory
    filters         names -> facts (size, age) -> sample -> limit; counts the items left out, by reason
    spool           the chosen items on disk, until they are submitted
    upload          local files -> bucket; unchanged copies are not sent again

Only names are checked here. The worker decides by content whether an object is an image.
"""
