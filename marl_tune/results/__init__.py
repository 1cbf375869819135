"""What a trial reports and what a run leaves behind: the names in a result, records, files, the manifest."""
