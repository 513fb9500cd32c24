"""Helpers that several folders of tests share; tests/README.md lists them."""
