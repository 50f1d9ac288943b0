"""Provide what tests of several packages share: builders, fakes at the outermost edge, real processes."""
