"""`thunderline bench`: what is measured side by side, in one run, on one machine."""
