"""Helpers and fakes that the tests share."""
