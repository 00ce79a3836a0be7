"""Bounds of what a plan is asked for, on both sides of the wire, and what a node keeps for its ranks."""

# Of a policy, and of a cluster that is only written down.
NODE_COUNT_MAX = 64
# Cables and networks.
WAY_COUNT_MAX = 2048
# Of the name of a node that is only written down.
NAME_LENGTH_MAX = 64
# Of mlx.launch's: 64 hosts in a ring of rails have not quite as much.
HOSTFILE_BYTES_MAX = 64 * 1024
# Of a machine's memory: what macOS lets Metal wire, and what a runner gives to ranks unless the config says otherwise.
RANKS_SHARE = 0.75
