"""The compiled parts: views and Hamming kernels in C. Without a compiler the install goes on without them."""

import sys

from setuptools import Extension, setup

FAST = [] if sys.platform == "win32" else ["-O3", "-fno-math-errno", "-fno-trapping-math"]

setup(
    ext_modules=[
        Extension(
            "semblance.images._native",
            sources=["src/semblance/images/native/views.c"],
            extra_compile_args=FAST,
            optional=True,
        ),
        Extension(
            "semblance.index._native",
            sources=["src/semblance/index/native/module.c"],
            optional=True,
        ),
    ]
)
