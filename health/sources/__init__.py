"""Where facts about a node come from: one file a source, each looked at once in a pass."""
