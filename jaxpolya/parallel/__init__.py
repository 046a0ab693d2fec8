"""The device mesh, the sharding table and what hosts share."""
