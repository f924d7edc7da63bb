"""Models, managers and events."""
