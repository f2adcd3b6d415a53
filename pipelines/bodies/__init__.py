"""Reads response bodies: JSON as it really arrives, an image's body, a page of a list. Nothing here sends requests."""
