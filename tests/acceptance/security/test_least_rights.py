"""Everything that producers and workers do works with the rights in `infra/redis/users.acl`."""

from __future__ import annotations

import signal

from support import commands
from support.redis_users import ADMIN, PREFIX, UNKNOWN_USER
from worker.contract import redis_keys


def test_no_command_of_producer_or_worker_is_refused(secured):
    first = secured.submit("least", "--job-key", "once")
    assert secured.submit("least", "--job-key", "once") == first
    for command in (("status", first), ("list",), ("retry", first, "--failed")):
        assert secured.run(*command).code == 0, command
    for process in secured.node.model_processes():
        process.send_signal(signal.SIGSTOP)  # keeps the next job in the queue
    second = secured.run("submit", secured.url("in/good"), secured.url("out/second"), "--json").lines[0]["job"]
    for command in ("pause", "resume", "cancel"):
        assert secured.run(command, second).code == 0, command
    for process in secured.node.model_processes():
        process.send_signal(signal.SIGKILL)
    commands.wait_for(lambda: '"cancelled"' in secured.run("status", second, "--json").out, "the cancel", 60)
    with secured.redis.client(ADMIN) as admin:
        admin.delete(redis_keys.job(PREFIX, first))
        assert secured.run("recover", first, secured.url("out/least")).code == 0
        refused = [entry for entry in admin.acl_log() if entry["username"] != UNKNOWN_USER]
    assert refused == []
