"""Everything that the browser shows: the panel, the timelines, the player, the Train page."""
