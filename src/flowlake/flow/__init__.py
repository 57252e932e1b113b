"""Order flow: which side each print took, prints clustered into packets, packets classified, flow summed per underlying."""
