"""The model server, and the versions and labels that it watches."""
