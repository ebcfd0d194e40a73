"""The renderer of the embedded data set: street scenes in perspective, with a class for each pixel."""
