"""What runs in a batch script before there is a supervisor."""
