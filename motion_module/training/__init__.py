"""Trains motion modules, motion LoRAs, domain adapters and SparseCtrl networks on a frozen image model."""
