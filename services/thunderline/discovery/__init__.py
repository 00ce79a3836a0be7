"""Who is in the cluster: the roster, node cards, liveness."""
