"""What computes a step: the native core or torch, behind one seam."""
