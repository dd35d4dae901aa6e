"""A benchmark's report in other forms: on the console, as CSV, JUnit and one HTML file. The JSON is the report."""
