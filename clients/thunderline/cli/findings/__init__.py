"""What `thunderline doctor` concludes from what it sees: values in, findings out. Pure."""
