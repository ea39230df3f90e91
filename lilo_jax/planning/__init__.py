"""What an experiment needs on devices that nobody has at hand: its own programs, compiled for them."""
