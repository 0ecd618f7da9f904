"""The command line's commands, one subject a file. Each file imports what it needs when its command runs."""
