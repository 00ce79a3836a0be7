"""What every process does alike: settings, paths, logs, metrics, and how it is told to stop."""
