"""Training of the encoders that ship with the project, on generated scenes."""
