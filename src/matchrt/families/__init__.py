"""What exporting knows about each family of networks: `base` says what that is, one file a family."""
