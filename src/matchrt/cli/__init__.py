"""The command line. Each command has its own file, and the work is done in other rooms."""
