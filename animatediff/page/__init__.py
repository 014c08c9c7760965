"""The page: the panel, timelines, player, presets, settings and the tab Train."""
