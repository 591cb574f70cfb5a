"""EigenPro 2: preconditioner, plan, optimizer, fitted values, guard against divergence, and the machine."""
