"""The report: figures, tables and the HTML page."""
