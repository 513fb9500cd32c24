"""A long run under faults, and the account of it: `make chaos MINUTES=30`.

    __main__    puts it together
    ├── nodes       `worker start`, several times on this machine, each under a host name of its own
    ├── load        submits jobs all the time, pauses and cancels some
    ├── faults      what goes wrong, how often, and the plan of a run (same seed, same plan)
    ├── s3_log      between workers and S3: counts what is really read and written
    ├── watch       how long what a fault hit was away; processes, connections, memory
    ├── account     after the last job: is every image accounted for?
    └── report      JSON and Markdown

Redis and S3 are real, the workers run the light built-in bundle on small pictures, so that many chunks pass.
"""
