"""The drawn photos of the demo."""
