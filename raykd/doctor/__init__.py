"""What keeps a cluster from running a study."""
