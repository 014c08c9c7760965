"""Trains motion modules, motion LoRAs and domain adapters on a frozen image model."""
