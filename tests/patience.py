"""How long tests wait for what has a time limit."""

import os

# A proof runs alone on its machine: there a limit is as it is asked for. In `make test` other systems share two
# cores: there a limit only tells what comes from what does not.
PATIENCE = 1.0 if os.environ.get("PROVE") else 3.0
