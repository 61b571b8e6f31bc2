"""The campaigns as a process knows them: compiled once per revision, read again on change, watched for health."""
