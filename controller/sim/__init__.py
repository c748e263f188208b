"""The fleet as discrete events, under the same decisions as the daemon's. Times are seconds unless a name says more."""
