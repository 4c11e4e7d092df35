"""The graph on Kubeflow Pipelines: a package for the server, and what runs in its pods."""
