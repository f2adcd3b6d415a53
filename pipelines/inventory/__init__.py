"""The user's inventory of image ids: reads it from its source and cleans it."""
