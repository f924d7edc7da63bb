"""Engines, as the managers of podkit 0.7 see them."""
