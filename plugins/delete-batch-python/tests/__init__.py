"""Tests of the plugin, as a package so that `python3 -m unittest` finds them."""
