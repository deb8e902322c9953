"""How an image is stepped beside its sampler: noise schedules of their own."""
