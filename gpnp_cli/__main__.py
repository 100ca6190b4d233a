"""`python -m gpnp_cli` and the `gpnp` script."""

import os
import sys


def main() -> None:
    """Run the command line; exits with the codes listed in `gpnp --help`."""
    # Threads that wait by spinning steal the cores from each other as soon as anything else runs, another shard
    # for example (three times the CPU time here); OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        if sys.argv[1:] in ([], ["-h"], ["--help"], ["--version"]):
            from .cli.root import outline

            outline()(prog_name="gpnp")
        else:
            from .cli.app import app

            app(prog_name="gpnp")
    except KeyboardInterrupt:
        print("gpnp: interrupted", file=sys.stderr)
        os._exit(130)


if __name__ == "__main__":
    main()
