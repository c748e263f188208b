"""Where the hours went: from accounting, jobs' own records and the controller's memory. Reads only."""
