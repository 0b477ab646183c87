"""The command line: one file of commands per purpose, loaded when called."""
