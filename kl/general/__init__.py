"""EigenPro 3 and 4: centres of one's own, the projection onto their span, and the machine."""
