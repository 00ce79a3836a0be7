"""`thunderline up`: starts the roles of a node, restarts those that die, ends them together."""
