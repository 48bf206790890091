"""The arms of `benchmarks/sweep.py`: every objective with the knobs that were tried, and those chosen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["ARMS", "CHOSEN", "DEFAULT", "Arm"]


@dataclass(frozen=True)
class Arm:
    """An objective, its options, batch, optimiser and learning rate."""

    objective: str
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 128
    optimiser: str = "muon"
    lr: float = 2e-3


PLUS = {"variant": "plus"}
DRAWN = {**PLUS, "plain": 0.0}
FREE = {"central": 0.0, "rim": 0.0, "spare": "never"}
ARMS: dict[str, Arm] = {
    "simclr": Arm("simclr"),
    "simclr, AdamW": Arm("simclr", optimiser="adamw"),
    "simclr, batch 64": Arm("simclr", {}, 64),
    "simclr, batch 256": Arm("simclr", {}, 256),
    "simclr, tau 0.2": Arm("simclr", {"tau": 0.2}),
    "simclr, projector": Arm("simclr", {"hidden": 512, "tau": 0.2}),
    "simclr, decoupled": Arm("simclr", {"decoupled": True}),
    "simclr, decoupled, AdamW": Arm("simclr", {"decoupled": True}, optimiser="adamw"),
    "sigreg": Arm("sigreg"),
    "sigreg, AdamW": Arm("sigreg", optimiser="adamw"),
    "sigreg, projector": Arm("sigreg", {"hidden": 512}),
    "sigreg, 2 local": Arm("sigreg", {"local": 2}),
    "sigreg, weight 0.2": Arm("sigreg", {"weight": 0.2}),
    "vicreg": Arm("vicreg"),
    "vicreg, AdamW": Arm("vicreg", optimiser="adamw"),
    "vicreg, projector": Arm("vicreg", {"hidden": 512}),
    "swav": Arm("swav"),
    "swav, AdamW": Arm("swav", optimiser="adamw"),
    "swav, 256 prototypes": Arm("swav", {"prototypes": 256}),
    "plus": Arm("cbswr", PLUS),
    "plus, measured 2": Arm("cbswr", {**PLUS, "measured": 2.0}),
    "plus, measured 8": Arm("cbswr", {**PLUS, "measured": 8.0}),
    "plus, nothing measured": Arm("cbswr", {**PLUS, "measured": 0.0}),
    "plus, measured 2, no clusters": Arm("cbswr", {**PLUS, "measured": 2.0, **FREE}),
    "plus, drawn views only": Arm("cbswr", DRAWN),
    "plus, drawn, no clusters": Arm("cbswr", {**DRAWN, **FREE}),
    "plus, drawn, not whitened": Arm("cbswr", {**DRAWN, "whiten": False}),
    "plus, drawn, not whitened, AdamW": Arm("cbswr", {**DRAWN, "whiten": False}, optimiser="adamw"),
    "fixed": Arm("cbswr", {"variant": "fixed"}),
    "sme": Arm("sme"),
    "stml": Arm("stml", {"momentum": 0.9}),
    "measure": Arm("measure"),
    "measure, not turned": Arm("measure", {"turn": 0.0}),
}
DEFAULT = "cbswr plus"
CHOSEN: dict[str, str] = {
    "cbswr plus": "plus",
    "simclr": "simclr, decoupled",
    "simclr as usual": "simclr, AdamW",
    "sigreg": "sigreg",
    "vicreg": "vicreg, projector",
    "swav": "swav, 256 prototypes",
    "stml": "stml",
    "measure": "measure",
    "sme": "sme",
    "cbswr fixed": "fixed",
}
"""Objective -> its arm in the sweep, by `tune`."""
