"""The compiled parts: C files in a room's `native/`. Without a compiler the install goes on without them."""

import sys
from pathlib import Path

from setuptools import Extension, setup

FAST = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math"]

setup(
    ext_modules=[
        Extension(
            f"semblance.{folder.parent.name}._native",
            sources=sorted(path.as_posix() for path in folder.glob("*.c")),
            depends=sorted(path.as_posix() for path in folder.glob("*.h")),
            extra_compile_args=[] if sys.platform == "win32" else FAST,
            optional=True,
        )
        for folder in sorted(Path("src/semblance").glob("*/native"))
    ]
)
