"""One module a kind of text that describes a fabric; `SOURCES` has them all, and a new one is a line in it."""
