"""Hints for ControlNets, prepared from images: edges, scribbles, stick figures and what networks see."""
