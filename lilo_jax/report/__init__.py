"""From run directories to numbers, tables, figures and one HTML file; host code only."""
