"""What commands print and record: tables, JSON, the hardware, and the standard streams."""
