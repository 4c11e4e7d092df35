"""What serves the model: the model server, and the versions and labels that it watches."""
