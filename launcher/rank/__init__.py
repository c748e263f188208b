"""What runs inside the rank processes, and the memory that they share with their agent."""
