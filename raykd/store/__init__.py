"""What a run leaves on disk or in an object store; the only package that knows its file names."""
