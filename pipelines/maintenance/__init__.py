"""Maintains published days: verifies and lists them, compacts months, and removes old files by rule."""
