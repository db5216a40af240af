"""The report: words, tables and plots made of runs' documents, as one HTML page, and as markdown with its plots."""
