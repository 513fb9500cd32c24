"""The `maskmill` command: all commands of producer and worker under one name, and `cut`, which needs both.

It is the only room of the worker that may import the producer: `cut` submits and delivers like a producer, and runs
workers. Each command is imported when it is called, so that one installed without workers can submit, list and watch.

    commands        the group, and what each command needs to be installed
    cut             the command `cut`: checks, order of steps, messages, exit codes
      pictures      which pictures a folder holds
      made          what was made from which picture
      session       services of this machine: running ones, or new ones
      folder_run    batches of pictures through the services, outputs into the folder
      report        the report page; totals and display: progress; stop_signal: Ctrl-C and SIGTERM
    stored          which services a command of the producer reaches here: running ones, or what is stored
"""
