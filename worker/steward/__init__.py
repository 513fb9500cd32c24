"""Process 4, the steward: everything that one node does for the whole fleet while it holds the lock of a role.

feeder       publishes chunk messages          (role `feed`)
reconciler   republishes lost chunks           (role `feed`)
bookkeeper   writes outcomes and lists to S3   (role `books`)
"""
