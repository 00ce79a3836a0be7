"""Where a model runs, and why not elsewhere: `plan` in plan.py, a pure function of values.py."""
