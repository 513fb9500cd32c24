"""Makers of inputs that more than one level of the tests needs."""
