"""`thunderline`: a role when one is named, else the command line."""

import os
import sys

from thunderline.cli import roles

# Read as grpc is imported; what the user has set stays.
GRPC_ENVIRONMENT = {
    # What its core says on stderr is told by our errors, one line each.
    "GRPC_VERBOSITY": "NONE",
    # Its newer event engine hands each message through two more threads, and a few sockets are polled faster than by
    # epoll: together a third of the CPU time that a token costs in the roles.
    "GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener,-event_engine_callback_cq",
    # Without that engine a channel that nobody calls on looks this often whether its peer is back; else every 5 s.
    "GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS": "200",
    "GRPC_POLL_STRATEGY": "poll",
}


def main() -> None:
    """The console script."""
    for key, value in GRPC_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    if len(sys.argv) > 1 and sys.argv[1] in roles.ROLES:
        # A role starts without the libraries of the command line: it is restarted while people wait.
        sys.exit(roles.run(sys.argv[1], sys.argv[2:]))
    from thunderline.cli.app import app

    app()


if __name__ == "__main__":
    main()
