"""Several programs as one heterogeneous job."""
