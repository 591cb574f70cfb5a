"""EigenPro 3 and 4: centres that need not be training rows, the projection onto their span, and the machine."""
