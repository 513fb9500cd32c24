"""A long run under random faults, and the account of every image: `make chaos MINUTES=30`.

    __main__    the run
    ├── cluster     Redis, Sentinels, S3 and the network of a run
    ├── nodes       `worker start`, several times on this machine, each with its own host name
    ├── load        submits jobs continuously, pauses and cancels some
    ├── faults      the kinds of faults, their frequency, and the plan of a run (the same for the same seed)
    ├── inject      executes the plan
    ├── s3_log      a proxy between workers and S3 that logs reads and writes
    ├── watch       measures recovery times; samples processes, connections and memory
    ├── account     after the last job: accounts for every image
    ├── repeats     which fault caused each input to be read, or output to be written, again
    └── report      JSON and Markdown
    controls    short runs that show what each safeguard is for
    upgrade     another run: two versions of the code in one fleet, without faults

Redis and S3 are real. The workers run the small built-in bundle on small pictures, so that many chunks pass.
"""
