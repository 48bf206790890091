"""Room: index. Indexes of vectors; one file per method.

A method's file defines `Config` and `Index(config)` with `add`, `search`, `within`, `remove`, `save` and
`load`; `search` returns `Matches` ordered by (distance, id).
"""
