"""`thunderline`: a role when one is named, else the command line."""

import os
import sys

from thunderline.cli import roles


def main() -> None:
    """The console script."""
    # What gRPC's core says on stderr is told by our errors, one line each.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if len(sys.argv) > 1 and sys.argv[1] in roles.ROLES:
        # A role starts without the libraries of the command line: it is restarted while people wait.
        sys.exit(roles.run(sys.argv[1], sys.argv[2:]))
    from thunderline.cli.app import app

    app()


if __name__ == "__main__":
    main()
