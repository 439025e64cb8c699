"""What the package adds to Airflow's own user interface: the page "Outputs"."""

PAGE = "modelslab/outputs"
"""Where the page is, below ``[api] base_url``: browsers resolve it against the base of Airflow's own pages."""
