"""The engine process: one rank of one epoch. The only package that imports mlx."""
