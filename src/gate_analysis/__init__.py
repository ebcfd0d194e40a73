"""What the gates of a network do."""
