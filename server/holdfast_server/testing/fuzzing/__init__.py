"""Fuzzing of everything that reads what strangers send: generated input, damaged on purpose, against plain models.

A target (`target`) is a way of making inputs and a check that fails on anything but the errors clients are meant to
get.  The targets stand in `targets`; `tests/fuzz` runs them for a moment in every test run and for as long as it is
told, `python -m holdfast_server.testing.fuzzing` runs one under atheris, guided by coverage, where that is installed.
May import everything of the server, and hypothesis, which only development installs have.
"""
