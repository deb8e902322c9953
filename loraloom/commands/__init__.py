"""The commands of `loraloom`: every module beside this one is one, named as its file."""
