"""What a person reads of a certificate: report.html, plots, tables, comparisons."""
