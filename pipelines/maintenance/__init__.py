"""What is done with days that are there: prove them, list them, put months together, remove by rule."""
