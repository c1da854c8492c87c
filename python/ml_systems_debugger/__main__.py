"""``python -m ml_systems_debugger`` is ``mlsd``."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="mlsd")
