"""`python -m semblance` is the command `semblance`; with several processes, `torchrun ... -m semblance`."""

from __future__ import annotations

from semblance.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
