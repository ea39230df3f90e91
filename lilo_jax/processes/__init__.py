"""Signals, children that end with their parent, how a command ends."""
