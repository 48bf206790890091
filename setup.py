"""The compiled part: Hamming kernels in C. Without a compiler the install goes on, and NumPy does their work."""

import sys
from pathlib import Path

from setuptools import Extension, setup

NATIVE = Path("src/semblance/index/native")

setup(
    ext_modules=[
        Extension(
            "semblance.index._native",
            sources=sorted(path.as_posix() for path in NATIVE.glob("*.c")),
            depends=sorted(path.as_posix() for path in NATIVE.glob("*.h")),
            extra_compile_args=[] if sys.platform == "win32" else ["-O3", "-std=c11"],
            optional=True,
        )
    ]
)
