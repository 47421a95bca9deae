"""Dates in the admin, as in the log and the API: to the second, in order, and with their time zone."""

DATE_FORMAT = "Y-m-d"
TIME_FORMAT = "H:i:s"
# a narrow column breaks it between date and time, and nowhere else
DATETIME_FORMAT = "Y-m-d H:i:s\N{NO-BREAK SPACE}T"
