"""What several people do with the migrations of one workspace: lock, rebase, squash."""
