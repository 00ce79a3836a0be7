"""What a Mac's own commands tell of it: how they are read (pure), and how they are run."""
