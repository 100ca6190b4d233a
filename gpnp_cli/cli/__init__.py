"""The command line: the only home of Typer, Rich, exit codes and stderr."""
