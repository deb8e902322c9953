"""What several families share, by line of architecture; a family file is put together from these."""
