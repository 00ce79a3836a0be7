"""What should run where: deployments, placements, instances, routing, admission."""
