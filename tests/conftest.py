"""Fixtures that several folders use."""

pytest_plugins = ["living"]
