"""The trainable parts, one module each."""
