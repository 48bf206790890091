"""The compiled part: Hamming kernels in C. Without a compiler the install goes on, and NumPy does their work."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "semblance.index._native",
            sources=["src/semblance/index/native/module.c"],
            optional=True,
        )
    ]
)
