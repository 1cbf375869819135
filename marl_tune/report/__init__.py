"""report.html from the files of a run's folder."""
