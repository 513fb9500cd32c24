"""All that producers and workers do, with the rights of `infra/redis/users.acl` and no others."""

from __future__ import annotations

import signal

from support import commands
from support.redis_users import ADMIN, PREFIX, STRANGER
from worker.contract import redis_keys


def test_jobs_of_every_kind_run_and_nothing_is_refused(secured):
    first = secured.submit("least", "--job-key", "once")
    assert secured.submit("least", "--job-key", "once") == first
    for command in (("status", first), ("list",), ("retry", first, "--failed")):
        assert secured.run(*command).code == 0, command
    for child in secured.node.children():
        child.send_signal(signal.SIGSTOP)  # so that the next job stays where it is
    second = secured.run("submit", secured.url("in/good"), secured.url("out/second"), "--json").lines[0]["job"]
    for command in ("pause", "resume", "cancel"):
        assert secured.run(command, second).code == 0, command
    for child in secured.node.children():
        child.send_signal(signal.SIGKILL)
    commands.wait_for(lambda: '"cancelled"' in secured.run("status", second, "--json").out, "the cancel", 60)
    with secured.redis.client(ADMIN) as admin:
        admin.delete(redis_keys.job(PREFIX, first))
        assert secured.run("recover", first, secured.url("out/least")).code == 0
        refused = [entry for entry in admin.acl_log() if entry["username"] != STRANGER]
    assert refused == []
