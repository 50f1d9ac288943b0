"""What Dynamo's mock engines read: step times of the simulated rack, a model folder without weights."""
