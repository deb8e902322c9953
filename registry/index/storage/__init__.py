"""The files behind records: blobs, cached hashes, verification, garbage collection."""
