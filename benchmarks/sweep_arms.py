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
    levels: bool = False
    """Whether a rival, too, is read off all levels of the encoder, as the default is."""
    random: bool = False
    """Whether the first layer starts from random weights in place of components of patches."""


PLUS = {"variant": "plus"}
LAST = {**PLUS, "beneath": 0.0, "doubt": 0.0}
"""As it was before the earlier stages were trained, too, and clusters had to be right more often than not."""
OWN = {**LAST, "dim": 128, "levels": False}
DRAWN = {**OWN, "plain": 0.0}
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
    "simclr, decoupled, all levels": Arm("simclr", {"decoupled": True}, levels=True),
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
    "plus, clusters trusted sooner": Arm("cbswr", {**PLUS, "doubt": 0.0}),
    "plus, last stage alone": Arm("cbswr", LAST),
    "plus, random first layer": Arm("cbswr", LAST, random=True),
    "plus, nothing measured": Arm("cbswr", {**LAST, "measured": 0.0}),
    "plus, drawn views only": Arm("cbswr", {**LAST, "plain": 0.0}),
    "plus, own head": Arm("cbswr", OWN),
    "plus, own head, measured 2": Arm("cbswr", {**OWN, "measured": 2.0}),
    "plus, own head, measured 8": Arm("cbswr", {**OWN, "measured": 8.0}),
    "plus, own head, nothing measured": Arm("cbswr", {**OWN, "measured": 0.0}),
    "plus, own head, measured 2, no clusters": Arm("cbswr", {**OWN, "measured": 2.0, **FREE}),
    "plus, own head, drawn views only": Arm("cbswr", DRAWN),
    "plus, own head, drawn, no clusters": Arm("cbswr", {**DRAWN, **FREE}),
    "plus, own head, drawn, not whitened": Arm("cbswr", {**DRAWN, "whiten": False}),
    "plus, own head, drawn, not whitened, AdamW": Arm("cbswr", {**DRAWN, "whiten": False}, optimiser="adamw"),
    "fixed": Arm("cbswr", {"variant": "fixed"}),
    "sme": Arm("sme"),
    "stml": Arm("stml", {"momentum": 0.9}),
    "stml, 2 neighbours": Arm("stml", {"momentum": 0.9, "neighbours": 2, "delta": 0.9}),
    "measure": Arm("measure"),
    "measure, not turned": Arm("measure", {"turn": 0.0}),
}
DEFAULT = "cbswr plus"
CHOSEN: dict[str, str] = {
    "cbswr plus": "plus",
    "cbswr plus, last stage alone": "plus, last stage alone",
    "cbswr plus, last stage and own head": "plus, own head",
    "simclr": "simclr, decoupled",
    "simclr, all levels": "simclr, decoupled, all levels",
    "simclr as usual": "simclr, AdamW",
    "sigreg": "sigreg",
    "vicreg": "vicreg, projector",
    "swav": "swav, 256 prototypes",
    "stml": "stml, 2 neighbours",
    "measure": "measure",
    "sme": "sme",
    "cbswr fixed": "fixed",
}
"""Objective -> its arm in the sweep, by `tune`."""
