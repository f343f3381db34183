"""What a user calls on text."""
