"""The command `creditrisk`, a module for each group of commands. A command parses arguments, calls
one function and prints; logic belongs below.
"""
