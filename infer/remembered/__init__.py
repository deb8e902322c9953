"""What plans found out of a base before, kept in the home, so that a plan of a known base loads neither torch nor diffusers."""
