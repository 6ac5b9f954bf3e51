"""The command line: one file a command, nothing but arguments and printing.

It is a package beside ``ghostsr_ext``, which loads torch, so that help and wrong options are
answered at once.
"""
