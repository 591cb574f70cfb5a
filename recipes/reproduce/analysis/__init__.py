"""Analyses of points that several experiments share."""
