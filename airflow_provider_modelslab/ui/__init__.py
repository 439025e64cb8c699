"""What the package adds to Airflow's own user interface: the page "Outputs"."""
