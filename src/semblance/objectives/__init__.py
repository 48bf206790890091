"""Objectives: what training minimises. One paper, one file; the file's name is the method's name.

A file defines `Config` (frozen dataclass) and `Objective(config, encoder)`, an `nn.Module` with
`.encoder`, `.head` and `forward(batch) -> Loss`; see `semblance.contracts.Objective` for the optional
methods. `SETTINGS` holds the published training settings by name.
"""
