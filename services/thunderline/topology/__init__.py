"""How nodes are joined: interfaces, links, their measured quality and health."""
