"""Room: codes."""
